"""A model with several workers: who gets what, and what a death or an odd one costs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.config.load import Config
from emberd.errors import WorkerCrashedError
from emberd.pool.backlog import ENOUGH_TEXTS, FEW_TEXTS
from emberd.pool.job import Answer
from emberd.pool.manager import Pool
from emberd.pool.watchdog import Patience
from emberd.registry.spec import Replicas
from emberd.spaces.lock import LockEntry, LockFile
from emberd.worker import wire
from tests.event_loop import in_event_loop
from tests.pool.fake_worker import (
    IMPATIENT,
    QUICK,
    SPACE,
    FakeWorker,
    Workers,
    answer_to,
    config_of,
    fake_pool,
    texts,
    until,
    with_entry,
    with_limits,
)

TWO = ("0", "1")


def pool_of(
    home: Path,
    workers: Workers,
    *,
    replicas: Replicas | None = None,
    limits: str = "{}",
    patience: Patience = QUICK,
) -> AbstractAsyncContextManager[Pool]:
    """Return a pool whose models `one` and `two` have so many replicas each."""
    config = config_of(home, "one", "two", limits=limits)
    for name in ("one", "two"):
        config = with_entry(config, name, replicas=replicas)
    return fake_pool(config, workers, patience=patience)


async def both(pool: Pool, workers: Workers) -> tuple[FakeWorker, FakeWorker]:
    """Load `one` and return its two workers, once they are ready."""
    await pool.load("one")
    await until(lambda: pool.status("one").replicas == 2)
    first, second = workers.spawned
    return first, second


@asynccontextmanager
async def two_workers(
    home: Path, workers: Workers | None = None, *, limits: str = "{}", patience: Patience = QUICK
) -> AsyncIterator[tuple[Pool, FakeWorker, FakeWorker]]:
    """Yield a pool and the two workers of its model `one`, which answer only when they are told.

    `workers`: what spawns them, for tests that need more of it.
    """
    workers = workers or Workers(answers=False, devices=TWO)
    async with pool_of(home, workers, limits=limits, patience=patience) as pool:
        yield pool, *(await both(pool, workers))


async def divided(pool: Pool, *workers: FakeWorker) -> "asyncio.Task[Answer]":
    """Ask for 1,000 texts, and return once each worker has been sent its part."""
    asking = asyncio.create_task(pool.embed(texts(*numbered(1000))))
    await until(lambda: all(worker.asked for worker in workers))
    return asking


def asked(worker: FakeWorker) -> list[list[str]]:
    """Return the texts of each request that a worker has been sent."""
    return [list(frame.texts) for frame in worker.asked]


def numbered(count: int, name: str = "") -> list[str]:
    """Return so many different texts."""
    return [f"{name}{number}" for number in range(count)]


def answer_all(*workers: FakeWorker) -> None:
    """Have workers answer what they have been sent, and whatever comes."""
    for worker in workers:
        worker.answers = True
        for frame in worker.asked:
            worker.answer(frame)


# -- how many there are -------------------------------------------------------------------------


@in_event_loop
async def test_the_first_worker_serves_at_once_and_others_start_beside_it(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with pool_of(home, workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        first = await workers.nth(1)
        assert (first.start.device, first.start.spec["backend"]) == ("", "auto")
        first.become_ready(devices=("2", "3", "5"))

        assert (await asking).fragments
        third = await workers.nth(3)
        starts = [worker.start for worker in workers.spawned[1:]]
        assert [start.device for start in starts] == ["3", "5"]
        assert {start.spec["backend"] for start in starts} == {"fake"}  # not chosen again
        assert all(start.lock and start.lock["fingerprint"] == SPACE for start in starts)
        assert pool.status().replicas == 1
        workers.spawned[1].become_ready(devices=("3",))
        third.become_ready(devices=("5",))
        await until(lambda: pool.status().replicas == 3)
        assert (pool.status().pids, pool.status().state) == ([1, 2, 3], "ready")


@pytest.mark.parametrize(
    ("replicas", "devices", "told"),
    [
        ("auto", TWO, ["", "1"]),
        (1, TWO, [""]),
        (5, TWO, ["", "1", "0", "1", "0"]),
        (3, ("0",), ["", "0", "0"]),
        ("auto", (), [""]),
        (3, (), [""]),
    ],
)
@in_event_loop
async def test_how_many_there_are_and_where(
    home: Path, replicas: Replicas, devices: Sequence[str], told: list[str]
) -> None:
    workers = Workers(devices=devices)
    async with pool_of(home, workers, replicas=replicas) as pool:
        await pool.load("one")
        await until(lambda: pool.status("one").replicas == len(told))

        assert [worker.start.device for worker in workers.spawned] == told
        count = len(told)
        assert [worker.start.workers for worker in workers.spawned] == [1, *[count] * (count - 1)]
        unheeded = ["one: `replicas` is 3, but fake runs one batch at once here."]
        assert pool.status("one").notes == (unheeded if (replicas, devices) == (3, ()) else [])


@in_event_loop
async def test_the_limits_say_how_many_for_models_that_do_not(home: Path) -> None:
    workers = Workers(devices=TWO)
    config = with_entry(config_of(home, "one", "two"), "two", replicas=2)
    async with fake_pool(with_limits(config, replicas=1), workers) as pool:
        await pool.load("one")
        await pool.load("two")
        await until(lambda: pool.status("two").replicas == 2)

        assert pool.status("one").replicas == 1


@pytest.mark.parametrize("where", ["entry", "limits"])
@in_event_loop
async def test_another_number_takes_effect_with_the_next_request(home: Path, where: str) -> None:
    workers = Workers(devices=TWO)
    config = config_of(home, "one", "two")
    async with fake_pool(config, workers) as pool:
        first, second = await both(pool, workers)
        with_one = (
            with_entry(config, "one", replicas=1)
            if where == "entry"
            else with_limits(config, replicas=1)
        )
        pool.apply(with_one)

        assert (await pool.embed(texts("a"))).fragments
        await until(lambda: first.is_gone and second.is_gone)
        assert (pool.status("one").replicas, len(workers.spawned)) == (1, 3)


# -- who gets what ------------------------------------------------------------------------------


@in_event_loop
async def test_a_request_goes_to_the_worker_with_the_fewest_texts(home: Path) -> None:
    async with two_workers(home) as (pool, first, second):
        asking = [
            asyncio.create_task(pool.embed(texts(*numbered(count, name))))
            for name, count in (("a", 9), ("b", 2), ("c", 3), ("d", 3))
        ]
        await until(lambda: len(first.asked) + len(second.asked) == 4)

        assert [len(each) for each in asked(first)] == [9]
        assert [len(each) for each in asked(second)] == [2, 3, 3]
        assert pool.status("one").in_flight == 4
        answer_all(first, second)
        await asyncio.gather(*asking)


@in_event_loop
async def test_a_large_request_is_divided_and_put_together_again(home: Path) -> None:
    async with two_workers(home) as (pool, first, second):
        asking = asyncio.create_task(pool.embed(texts(*numbered(1001))))
        await until(lambda: first.asked and second.asked)
        row = pool.status("one")
        assert (row.in_flight, row.queued) == (1, 0)
        for worker, letter in ((first, b"1"), (second, b"2")):
            (frame,) = worker.asked
            count = len(frame.texts)
            said, _ = answer_to(frame)
            worker.say(said, letter * count)

        assert asked(first) == [numbered(1001)[:501]]
        assert asked(second) == [numbered(1001)[501:]]
        answer = await asking
        assert answer.fragments == [b"1"] * 501 + [b"2"] * 500
        assert answer.tokens == 1001
        assert pool.queued_texts() == {}


@in_event_loop
async def test_what_one_worker_alone_has_is_not_divided(home: Path) -> None:
    workers = Workers()
    async with pool_of(home, workers) as pool:
        await asyncio.gather(
            *(pool.embed(texts(*numbered(2 * FEW_TEXTS), model="one")) for _ in range(20))
        )

        assert {len(each) for each in asked(workers.spawned[0])} == {2 * FEW_TEXTS}


@in_event_loop
async def test_large_requests_wait_for_whoever_is_free_and_small_ones_pass(home: Path) -> None:
    async with two_workers(home) as (pool, first, second):
        many = [asyncio.create_task(pool.embed(texts(*numbered(ENOUGH_TEXTS)))) for _ in range(3)]
        await until(lambda: len(first.asked) == len(second.asked) == 2)
        assert (pool.status("one").in_flight, pool.status("one").queued) == (2, 1)
        few = asyncio.create_task(pool.embed(texts("a")))
        await until(lambda: len(first.asked) == 3)
        second.answer(second.asked[0])
        await until(lambda: len(second.asked) == 3)
        assert pool.status("one").queued == 1  # one half of the third
        first.answer(first.asked[0])
        await until(lambda: len(first.asked) == 4)
        for worker in (first, second):
            for frame in worker.asked[1:]:
                worker.answer(frame)

        assert (await few).fragments
        assert [len((await job).fragments) for job in many] == [ENOUGH_TEXTS] * 3


@in_event_loop
async def test_a_worker_that_does_not_read_is_left_out(home: Path) -> None:
    async with two_workers(home, Workers(devices=TWO)) as (pool, first, second):
        first.takes_more = False
        await asyncio.gather(*(pool.embed(texts(str(number))) for number in range(5)))

        assert (first.asked, len(second.asked)) == ([], 5)


@in_event_loop
async def test_a_request_that_is_abandoned_is_cancelled_in_every_worker(home: Path) -> None:
    async with two_workers(home) as (pool, first, second):
        asking = await divided(pool, first, second)
        asking.cancel()
        await until(lambda: not pool.status("one").in_flight)

        for worker in (first, second):
            assert worker.sent[-1] == wire.Cancel(id=worker.asked[0].id)
        assert pool.queued_texts() == {}


@in_event_loop
async def test_a_request_that_one_worker_refuses_is_cancelled_in_the_other(home: Path) -> None:
    async with two_workers(home) as (pool, first, second):
        asking = await divided(pool, first, second)
        first.say(wire.Failure(id=first.asked[0].id, code="bad_vector", message="No."))
        (failure,) = await asyncio.gather(asking, return_exceptions=True)

        assert getattr(failure, "code", None) == "bad_vector"
        assert second.sent[-1] == wire.Cancel(id=second.asked[0].id)
        assert pool.queued_texts() == {}


# -- dying --------------------------------------------------------------------------------------


@in_event_loop
async def test_a_death_costs_only_what_that_worker_had_and_it_alone_is_replaced(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(answers=False, devices=TWO)
    with caplog.at_level(logging.INFO, "emberd.pool"):
        async with two_workers(home, workers) as (pool, first, second):
            asking = [asyncio.create_task(pool.embed(texts(name))) for name in "abcd"]
            await until(lambda: len(first.asked) == len(second.asked) == 2)
            second.die()
            third = await workers.nth(3)
            assert third.start.device == "1"
            answer_all(first, third)
            answers = await asyncio.gather(*asking)

            assert all(answer.fragments == [b"v"] for answer in answers)
            assert sorted(asked(first) + asked(third)) == [["a"], ["b"], ["c"], ["d"]]
            await until(lambda: pool.status("one").replicas == 2)
    states = [line for line in caplog.messages if line in ("one: cold", "one: starting")]
    assert states == ["one: starting", "one: cold"]  # the death is not the model's


@in_event_loop
async def test_the_first_worker_may_die_as_well(home: Path) -> None:
    workers = Workers(devices=TWO)
    async with two_workers(home, workers) as (pool, first, second):
        first.die()
        third = await workers.nth(3)
        await until(lambda: pool.status("one").replicas == 2)

        assert (third.start.device, pool.status("one").state) == ("", "ready")
        assert not second.is_gone


@in_event_loop
async def test_nothing_is_lost_when_all_die(home: Path) -> None:
    workers = Workers(answers=False, devices=TWO)
    async with two_workers(home, workers) as (pool, first, second):
        asking = [
            asyncio.create_task(pool.embed(texts(*numbered(count)))) for count in (1000, 1, 1)
        ]
        await until(lambda: first.asked and second.asked)
        workers.answers = True
        first.die()
        second.die()
        answers = await asyncio.gather(*asking)

        assert [len(answer.fragments) for answer in answers] == [1000, 1, 1]
        await until(lambda: pool.status("one").replicas == 2)


@in_event_loop
async def test_what_was_answered_before_a_death_is_kept(home: Path) -> None:
    async with two_workers(home) as (pool, first, second):
        asking = await divided(pool, first, second)
        second.answer(second.asked[0], *range(400))
        await until(lambda: pool.queued_texts() == {"one": 600})
        second.die()
        await until(lambda: len(first.asked) == 2)
        answer_all(first)

        assert asked(first)[1] == numbered(1000)[900:]
        assert (await asking).fragments == [b"v"] * 1000


@in_event_loop
async def test_a_suspect_runs_alone_while_the_other_worker_serves(home: Path) -> None:
    workers = Workers(answers=False, devices=TWO)
    async with two_workers(home, workers) as (pool, first, second):
        good = asyncio.create_task(pool.embed(texts("good")))
        await until(lambda: first.asked)
        bad = asyncio.create_task(pool.embed(texts("bad")))
        await until(lambda: second.asked)
        second.die()
        third = await workers.nth(3)
        await until(lambda: third.asked)
        later = [asyncio.create_task(pool.embed(texts(name))) for name in ("x", "y")]
        await until(lambda: len(first.asked) == 3)
        assert asked(third) == [["bad"]]
        third.die()

        with pytest.raises(WorkerCrashedError):
            await bad
        answer_all(first)
        assert all(answer.fragments for answer in await asyncio.gather(good, *later))


@in_event_loop
async def test_a_worker_that_hangs_is_killed_and_the_other_is_not(home: Path) -> None:
    workers = Workers(answers=False, devices=TWO)
    async with two_workers(home, workers, patience=IMPATIENT) as (pool, first, second):
        workers.answers = True  # the next one

        def compute() -> None:
            first.cpu_s += 1

        first.looked_at = compute
        asking = [asyncio.create_task(pool.embed(texts(name))) for name in "ab"]
        await until(lambda: first.asked and second.was_killed)
        answer_all(first)

        assert all(answer.fragments for answer in await asyncio.gather(*asking))
        assert (first.was_killed, second.was_killed) == (False, True)


@in_event_loop
async def test_a_replica_that_cannot_start_is_given_up_and_the_others_serve(home: Path) -> None:
    workers = Workers()
    async with pool_of(home, workers) as pool:
        workers.become_ready = False
        loading = asyncio.create_task(pool.load("one"))
        (await workers.nth(1)).become_ready(devices=TWO)
        await loading
        for number in range(2, 2 + QUICK.max_failures):
            (await workers.nth(number)).die("SIGKILL")
        await until(lambda: pool.status("one").notes)

        (note,) = pool.status("one").notes
        assert note.startswith("one (replica 2) does not run: The worker of one (replica 2) died")
        assert (await pool.embed(texts("a"))).fragments
        assert (pool.status("one").state, pool.status("one").replicas) == ("ready", 1)
        await pool.unload()
        workers.become_ready, workers.devices = True, TWO
        await pool.load("one")  # tries again
        await until(lambda: pool.status("one").replicas == 2)
        assert pool.status("one").notes == []


@pytest.mark.parametrize("reason", ["space", "compute"])
@in_event_loop
async def test_a_worker_that_gives_other_vectors_does_not_serve(home: Path, reason: str) -> None:
    workers = Workers(become_ready=False)
    async with pool_of(home, workers) as pool:
        loading = asyncio.create_task(pool.load("one"))
        (await workers.nth(1)).become_ready(devices=TWO)
        await loading
        odd = await workers.nth(2)
        if reason == "space":
            odd.become_ready("another space")
        else:
            odd.become_ready(compute="f16")
        await until(lambda: odd.is_gone)
        answers = await asyncio.gather(*(pool.embed(texts(str(number))) for number in range(9)))

        assert {answer.fingerprint for answer in answers} == {SPACE}
        assert odd.asked == []
        (note,) = pool.status("one").notes
        assert "does not run: its vectors are of space" in note
        assert len(workers.spawned) == 2


@in_event_loop
async def test_what_a_damaged_worker_had_a_part_in_is_computed_again(home: Path) -> None:
    workers = Workers(answers=False, devices=TWO)
    async with two_workers(home, workers) as (pool, first, second):
        asking = await divided(pool, first, second)
        second.answer(second.asked[0])
        await until(lambda: pool.queued_texts() == {"one": 500})
        workers.answers = True
        answer_all(first)
        second.say(wire.Damaged(what="a cache"))

        assert (await asking).fragments == [b"v"] * 1000
        assert second.was_killed
        assert "a cache" in (await audited(pool, first) or "")


async def audited(pool: Pool, worker: FakeWorker) -> str | None:
    """Have the other workers find nothing, and return what was found."""
    await until(lambda: pool.status("one").replicas == 2)
    waiting = asyncio.create_task(pool.audited("one"))
    await asyncio.sleep(0)
    assert not waiting.done()
    worker.say(wire.Audited())
    await asyncio.sleep(0)
    assert not waiting.done()
    pool_workers = [session.worker for session in pool._models["one"].sessions]
    for other in pool_workers:
        assert isinstance(other, FakeWorker)
        other.say(wire.Audited())
    return await waiting


# -- memory, and leaving ------------------------------------------------------------------------


@in_event_loop
async def test_memory_is_that_of_all_and_one_that_has_no_room_does_not_start(home: Path) -> None:
    workers = Workers(devices=("0", "1", "2"))
    config = config_of(home, "one", "two", limits="{memory_budget: 1000MiB}")
    async with fake_pool(config, workers) as pool:
        await pool.load("one")
        for worker in workers.spawned:
            worker.resident_bytes = 450 * 2**20
        await until(lambda: pool.status("one").replicas == 3)
        for worker in workers.spawned:
            worker.resident_bytes = 450 * 2**20
        assert pool.status("one").memory_bytes == 3 * 450 * 2**20
        await pool.unload()
        peak = LockFile(config.homes.state).read()["one"].peak_memory_bytes
        assert peak == 450 * 2**20  # of one worker
        await pool.load("one")  # which has room for two of them
        await until(lambda: pool.status("one").replicas == 2)

        (note,) = pool.status("one").notes
        assert note == "one (replica 3) does not run: there is no room for it."
        assert (await pool.embed(texts("a"))).fragments


def measured(config: Config, *names: str) -> Config:
    """Note that a worker of these models takes 400 MiB, and return the configuration."""
    for name in names:
        entry = LockEntry(source="", folder="", fingerprint=SPACE, peak_memory_bytes=400 * 2**20)
        LockFile(config.homes.state).put(name, entry)
    return config


@pytest.mark.parametrize("way", ["unload", "limits"])
@in_event_loop
async def test_one_that_had_no_room_starts_when_there_is(
    home: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(devices=("0", "1"))
    config = config_of(home, "one", "two", limits="{memory_budget: 1000MiB}")
    config = measured(with_entry(config, "two", replicas=1), "one", "two")
    async with fake_pool(config, workers) as pool:
        await pool.load("two")
        await pool.load("one")
        assert pool.status("one").notes
        pool.apply(with_limits(config, memory_budget=1100 * 2**20))  # for two of them, not three
        assert pool.status("one").notes
        if way == "unload":
            await pool.unload("two")
        else:
            pool.apply(with_limits(config, memory_budget=1200 * 2**20))

        await until(lambda: pool.status("one").replicas == 2)
        assert pool.status("one").notes == []
        assert len(workers.spawned) == 3
    assert caplog.text.count("there is no room for it") == 1


@in_event_loop
async def test_a_model_that_waits_for_room_goes_before_another_worker(home: Path) -> None:
    workers = Workers(devices=("0", "1"))
    config = config_of(home, "one", "two", "three", limits="{memory_budget: 1000MiB}")
    for name in ("two", "three"):
        config = with_entry(config, name, replicas=1)
    async with fake_pool(measured(config, "one", "two", "three"), workers) as pool:
        await pool.load("two")
        await pool.load("one")
        await pool.load("three")  # in the place of `two`

        assert pool.states()["two"] == "cold"
        assert pool.status("one").notes
        await pool.unload("three")
        await until(lambda: pool.status("one").replicas == 2)


@in_event_loop
async def test_a_model_that_makes_room_ends_all_its_workers(home: Path) -> None:
    limits = "{memory_budget: 1000MiB}"
    async with two_workers(home, limits=limits) as (pool, first, second):
        first.resident_bytes = second.resident_bytes = 400 * 2**20
        assert pool.status("one").memory_bytes == 800 * 2**20
        await pool.load("two")

        await until(lambda: pool.status("one").state == "cold")
        assert (first.is_gone, second.is_gone) == (True, True)


@pytest.mark.parametrize("way", ["unload", "idle", "close"])
@in_event_loop
async def test_all_end_together(home: Path, way: str) -> None:
    async with two_workers(home) as (pool, first, second):
        if way == "unload":
            assert await pool.unload() == ["one"]
        elif way == "idle":
            pool.apply(config_of(home, "one", "two", limits="{idle_unload: 0.05s}"))
            await until(lambda: pool.states()["one"] == "cold")
        else:
            await pool.close()

        assert (first.is_gone, second.is_gone) == (True, True)
        row = pool.status("one")
        assert (row.state, row.replicas, row.pids) == ("cold", 0, [])


@in_event_loop
async def test_one_that_is_still_starting_does_not_hold_up_an_unload(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with pool_of(home, workers) as pool:
        loading = asyncio.create_task(pool.load("one"))
        (await workers.nth(1)).become_ready(devices=TWO)
        await loading
        second = await workers.nth(2)

        assert await pool.unload() == ["one"]
        assert second.is_gone


@in_event_loop
async def test_what_was_begun_is_finished_before_they_leave(home: Path) -> None:
    workers = Workers(answers=False, devices=TWO)
    async with two_workers(home, workers) as (pool, first, second):
        asking = [asyncio.create_task(pool.embed(texts(*numbered(ENOUGH_TEXTS)))) for _ in range(3)]
        await until(lambda: len(first.asked) == len(second.asked) == 2)
        first.answer(first.asked[0])
        await until(lambda: len(first.asked) == 3)  # one half of the third
        unloading = asyncio.create_task(pool.unload())
        await until(lambda: pool.states()["one"] == "draining")
        late = asyncio.create_task(pool.embed(texts("late")))
        for frame in first.asked[1:]:
            first.answer(frame)
        answer_all(second)
        first.answers = workers.answers = True
        answers = await asyncio.gather(*asking)

        assert [len(answer.fragments) for answer in answers] == [ENOUGH_TEXTS] * 3
        assert await unloading == ["one"]
        assert (await late).fragments  # by the next one
        assert ["late"] not in asked(first) + asked(second)


@in_event_loop
async def test_an_idle_worker_does_not_end_the_one_that_computes(home: Path) -> None:
    workers = Workers(answers=False, devices=TWO)
    patience = replace(QUICK, check_s=0.005)
    async with pool_of(home, workers, limits="{idle_unload: 0.05s}", patience=patience) as pool:
        await pool.load("one")
        asking = asyncio.create_task(pool.embed(texts("a")))
        await until(lambda: any(worker.asked for worker in workers.spawned))
        await asyncio.sleep(0.15)
        assert pool.states()["one"] == "ready"
        answer_all(*workers.spawned)

        assert (await asking).fragments
