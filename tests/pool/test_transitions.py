"""Each transition in the table happens as it says, with fake workers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from emberd.errors import WorkerStartError
from emberd.pool.manager import Pool
from emberd.pool.states import TRANSITIONS, Event, State
from tests.pool.fake_worker import QUICK, Workers, config_of, fake_pool, texts, until

Story = Callable[[Pool, Workers], Awaitable[None]]


async def answered(pool: Pool, _workers: Workers) -> None:
    """A cold model is wanted, gets ready, is asked to leave, and has left."""
    await pool.embed(texts("a"))
    await pool.unload()


async def called_off(pool: Pool, workers: Workers) -> None:
    workers.become_ready = False
    asking = asyncio.create_task(pool.embed(texts("a")))
    await workers.nth(1)
    asking.cancel()
    await pool.unload()


async def died_while_starting(pool: Pool, workers: Workers) -> None:
    workers.become_ready = False
    loading = asyncio.create_task(pool.load(None))
    (await workers.nth(1)).die()
    (await workers.nth(2)).become_ready()
    await loading


async def died_while_ready(pool: Pool, workers: Workers) -> None:
    await pool.load(None)
    workers.spawned[0].die()
    await until(lambda: pool.states()["one"] == "cold")


async def died_while_draining(pool: Pool, workers: Workers) -> None:
    workers.answers = False
    asking = asyncio.create_task(pool.embed(texts("a")))
    worker = await workers.nth(1)
    await until(lambda: worker.asked)
    unloading = asyncio.create_task(pool.unload())
    await until(lambda: pool.states()["one"] == "draining")
    workers.answers = True
    worker.die()
    await asyncio.gather(unloading, asking)


async def gave_up_and_was_wanted_again(pool: Pool, workers: Workers) -> None:
    workers.fails = OSError(11, "Resource temporarily unavailable")
    with pytest.raises(WorkerStartError):
        await pool.load(None)
    await asyncio.sleep(QUICK.max_backoff_s)
    await pool.load(None)


async def gave_up_while_ready(pool: Pool, workers: Workers) -> None:
    """Five workers in a row become ready and die of their first request."""
    workers.answers = False
    asking = [asyncio.create_task(pool.embed(texts(str(number)))) for number in range(9)]
    for number in range(1, 6):
        worker = await workers.nth(number)
        await until(partial(getattr, worker, "asked"))
        worker.die()
    await asyncio.gather(*asking, return_exceptions=True)


async def gave_up_while_draining(pool: Pool, workers: Workers) -> None:
    """As before, and the fifth has been asked to leave."""
    workers.answers = False
    asking = [asyncio.create_task(pool.embed(texts(str(number)))) for number in range(9)]
    for number in range(1, 6):
        worker = await workers.nth(number)
        await until(partial(getattr, worker, "asked"))
        if number == 5:
            unloading = asyncio.create_task(pool.unload())
            await until(lambda: pool.states()["one"] == "draining")
        worker.die()
    await asyncio.gather(*asking, unloading, return_exceptions=True)


STORIES: dict[tuple[State, Event], Story] = {
    ("cold", "wanted"): answered,
    ("failed", "wanted"): gave_up_and_was_wanted_again,
    ("starting", "ready"): answered,
    ("starting", "called_off"): called_off,
    ("starting", "died"): died_while_starting,
    ("starting", "gave_up"): gave_up_and_was_wanted_again,
    ("ready", "leave"): answered,
    ("ready", "died"): died_while_ready,
    ("ready", "gave_up"): gave_up_while_ready,
    ("draining", "left"): answered,
    ("draining", "died"): died_while_draining,
    ("draining", "gave_up"): gave_up_while_draining,
}


@pytest.mark.parametrize(("state", "event"), TRANSITIONS)
def test_each_row_of_the_table_happens(
    state: State, event: Event, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        workers = Workers()
        async with fake_pool(config_of(home, "one"), workers) as pool:
            await STORIES[state, event](pool, workers)

    with caplog.at_level(logging.INFO, "emberd.pool"):
        asyncio.run(play())

    states = ["cold", *logged_states(caplog)]
    steps = set(pairwise(states))
    assert (state, TRANSITIONS[state, event]) in steps
    assert steps <= {(before, after) for (before, _), after in TRANSITIONS.items()}


def logged_states(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the states that the model `one` went through."""
    known = {f"one: {state}": state for state in get_args(State)}
    return [known[line] for line in caplog.messages if line in known]


def test_every_state_can_be_reached_and_left_and_every_event_happens() -> None:
    assert {state for state, _ in TRANSITIONS} == set(get_args(State))
    assert set(TRANSITIONS.values()) == set(get_args(State))
    assert {event for _, event in TRANSITIONS} == set(get_args(Event))
    assert set(STORIES) == set(TRANSITIONS)
