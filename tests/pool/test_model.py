"""Models that start, stay, leave and die, and what waiting requests get, with fake workers.

What only a real process can show is in `test_real_models.py`.
"""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.config.load import Config
from emberd.errors import (
    DeadlineError,
    EmberdError,
    ModelLoadError,
    NoRoomError,
    ShuttingDownError,
    WorkerCrashedError,
    WorkerStartError,
)
from emberd.pool.manager import Pool
from emberd.pool.status import VECTORS_DAMAGED
from emberd.spaces.lock import LockFile
from emberd.worker import wire
from tests.event_loop import in_event_loop
from tests.pool.fake_worker import (
    IMPATIENT,
    QUICK,
    Workers,
    config_of,
    fake_pool,
    texts,
    until,
    with_entry,
    with_limits,
)


def loaded(pool: Pool) -> dict[str, str]:
    """Return the state of every model that is not cold."""
    return {name: state for name, state in pool.states().items() if state != "cold"}


async def settled() -> None:
    """Let everything run that is not waiting."""
    for _ in range(20):
        await asyncio.sleep(0)


class Clock:
    """The clock of all replicas. A test moves it on, so that the machine may stall."""

    now_s = 0.0

    def monotonic(self) -> float:
        """Stand in for that of `time`: later each time, by next to nothing."""
        self.now_s += 1e-6
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("emberd.pool.replica.time", clock)
    return clock


# -- starting -----------------------------------------------------------------------------------


@in_event_loop
async def test_a_thousand_first_requests_start_one_worker(home: Path) -> None:
    workers = Workers()
    async with fake_pool(config_of(home, "one"), workers) as pool:
        answers = await asyncio.gather(*(pool.embed(texts(str(n))) for n in range(1000)))

    assert {len(answer.fragments) for answer in answers} == {1}
    assert len(workers.spawned) == 1


@in_event_loop
async def test_a_worker_is_told_which_model_to_load_and_what_is_known_of_it(home: Path) -> None:
    workers = Workers()
    async with fake_pool(config_of(home, "one"), workers) as pool:
        await pool.load("one")
        await pool.unload()
        await pool.load("one")

    first, second = (worker.start for worker in workers.spawned)
    assert (first.spec["name"], first.lock) == ("one", None)
    assert second.lock
    assert second.lock["source"] == "path:/fake"


@in_event_loop
async def test_a_start_that_fails_says_why_to_all_who_wait_and_is_not_tried_again_at_once(
    home: Path,
) -> None:
    workers = Workers(become_ready=False)
    patience = replace(QUICK, max_backoff_s=60)
    async with fake_pool(config_of(home, "one"), workers, patience=patience) as pool:
        asking = [asyncio.create_task(pool.embed(texts(str(n)))) for n in range(3)]
        worker = await workers.nth(1)
        worker.say(wire.StartFailed(code="model_load_failed", message="No.", hint="Look."))
        worker.die("exit code 1")
        failures = await asyncio.gather(*asking, return_exceptions=True)

        assert {type(failure) for failure in failures} == {ModelLoadError}
        with pytest.raises(ModelLoadError, match=r"No\.") as refused:
            await pool.embed(texts("again"))
        assert refused.value.hint
        assert refused.value.hint.startswith("Look. ")
        assert (len(workers.spawned), pool.status().last_error) == (1, "No.")


@in_event_loop
async def test_after_the_backoff_the_next_request_tries_again(home: Path) -> None:
    workers = Workers(fails=OSError(12, "Cannot allocate memory"))
    async with fake_pool(config_of(home, "one"), workers) as pool:
        with pytest.raises(WorkerStartError, match="Cannot allocate memory"):
            await pool.embed(texts("a"))
        await asyncio.sleep(QUICK.max_backoff_s)

        assert (await pool.embed(texts("a"))).fragments
        assert pool.status().last_error is None


@in_event_loop
async def test_a_start_that_makes_no_progress_is_killed_and_made_again(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers, patience=IMPATIENT) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        await workers.nth(1)
        workers.become_ready = True

        assert (await asking).fragments
        assert workers.spawned[0].was_killed
        assert pool.status().loads == 1


@in_event_loop
async def test_a_start_that_makes_no_progress_twice_fails(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers, patience=IMPATIENT) as pool:
        with pytest.raises(WorkerStartError):
            await pool.embed(texts("a"))

        assert [worker.was_killed for worker in workers.spawned] == [True, True]


@pytest.mark.parametrize("alive_by", ["progress", "processor time"])
@in_event_loop
async def test_a_slow_start_is_left_alone(home: Path, alive_by: str, clock: Clock) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers, patience=IMPATIENT) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
        looks = itertools.count()

        def move() -> None:
            clock.now_s += IMPATIENT.stall_s / 3
            if alive_by == "progress":
                worker.say(wire.Progress(phase="downloading", done=next(looks), total=9999))
            else:
                worker.cpu_s += 1

        worker.looked_at = move
        await until(lambda: clock.now_s > 4 * IMPATIENT.stall_s)
        worker.become_ready()

        assert (await asking).fragments
        assert len(workers.spawned) == 1


# -- dying --------------------------------------------------------------------------------------


@in_event_loop
async def test_what_a_dead_worker_had_is_answered_by_the_next_one(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a", "b")))
        first = await workers.nth(1)
        await until(lambda: first.asked)
        first.answer(first.asked[0], 0)
        first.die()
        second = await workers.nth(2)
        await until(lambda: second.asked)

        assert list(second.asked[0].texts) == ["b"]
        second.answer(second.asked[0])
        assert (await asking).fragments == [b"v", b"v"]


@in_event_loop
async def test_a_request_that_kills_two_workers_fails_and_its_neighbours_do_not(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        bad = asyncio.create_task(pool.embed(texts("bad")))
        good = asyncio.create_task(pool.embed(texts("good")))
        first = await workers.nth(1)
        await until(lambda: len(first.asked) == 2)
        first.die()
        second = await workers.nth(2)
        await until(lambda: second.asked)
        assert [list(frame.texts) for frame in second.asked] == [["bad"]]
        workers.answers = True
        second.die()

        with pytest.raises(WorkerCrashedError):
            await bad
        assert (await good).fragments


@in_event_loop
async def test_who_waits_for_workers_that_die_as_they_become_ready_is_not_to_blame(
    home: Path,
) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        for number in (1, 2):
            worker = await workers.nth(number)
            worker.become_ready()
            worker.die()
        (await workers.nth(3)).become_ready()

        assert (await asking).fragments == [b"v"]


@in_event_loop
async def test_workers_that_die_five_times_in_a_row_fail_everyone_who_waits(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        for number in range(1, QUICK.max_failures + 1):
            (await workers.nth(number)).die("SIGKILL")

        with pytest.raises(WorkerStartError, match=r"5 times.* starting.*SIGKILL"):
            await asking
        assert pool.status().state == "failed"


@in_event_loop
async def test_a_worker_that_hangs_is_killed_and_its_requests_are_answered(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers, patience=IMPATIENT) as pool:
        asking = [asyncio.create_task(pool.embed(texts(str(n)))) for n in range(4)]
        hangs = await workers.nth(1)
        workers.answers = True

        assert all(answer.fragments for answer in await asyncio.gather(*asking))
        assert hangs.was_killed
        assert pool.status().loads == 2


@in_event_loop
async def test_a_worker_that_computes_for_long_is_left_alone(home: Path, clock: Clock) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers, patience=IMPATIENT) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)

        def compute() -> None:
            clock.now_s += IMPATIENT.hung_s / 3
            worker.cpu_s += 1

        worker.looked_at = compute
        await until(lambda: clock.now_s > 4 * IMPATIENT.hung_s)
        worker.answer(worker.asked[0])

        assert (await asking).fragments
        assert not worker.was_killed


@in_event_loop
async def test_a_worker_that_sends_nonsense_is_replaced(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
        await until(lambda: worker.asked)
        workers.answers = True
        worker.answer(worker.asked[0], 7)  # there is no text 7

        assert (await asking).fragments
        assert len(workers.spawned) == 2


@pytest.mark.parametrize("answered", [0, 3])
@in_event_loop
async def test_damage_is_computed_again_and_warned_of_when_something_was_answered_with_it(
    home: Path, answered: int
) -> None:
    workers = Workers()
    async with fake_pool(config_of(home, "one"), workers) as pool:
        await pool.load(None)
        damaged = workers.spawned[0]
        for number in range(answered):
            await pool.embed(texts(str(number)))
        damaged.answers = False
        asking = asyncio.create_task(pool.embed(texts("a", "b")))
        await until(lambda: len(damaged.asked) > answered)
        damaged.answer(damaged.asked[-1], 0)
        damaged.say(wire.Damaged(what="a cache"))

        assert (await asking).fragments == [b"v", b"v"]
        assert list(workers.spawned[1].asked[0].texts) == ["a", "b"]
        assert damaged.was_killed
        codes = [warning["code"] for warning in pool.warnings()]
        assert codes == ([VECTORS_DAMAGED] if answered else [])


@in_event_loop
async def test_an_audit_is_waited_for(home: Path) -> None:
    workers = Workers()
    async with fake_pool(config_of(home, "one"), workers) as pool:
        await pool.embed(texts("a"))
        waiting = asyncio.create_task(pool.audited(None))
        await settled()
        assert not waiting.done()

        workers.spawned[0].say(wire.Audited())

        assert await waiting is None


@pytest.mark.parametrize("answered", [0, 1])
@in_event_loop
async def test_an_audit_says_what_was_damaged_also_when_nothing_was_answered_with_it(
    home: Path, answered: int
) -> None:
    workers = Workers()
    async with fake_pool(config_of(home, "one"), workers) as pool:
        await pool.load(None)
        for _ in range(answered):
            await pool.embed(texts("a"))
        waiting = asyncio.create_task(pool.audited(None))
        await settled()

        workers.spawned[0].say(wire.Damaged(what="a cache"))

        assert "a cache" in (await waiting or "")
        await until(lambda: not loaded(pool))
        assert "a cache" in (await pool.audited(None) or "")


@in_event_loop
async def test_an_audit_ends_with_its_worker(home: Path) -> None:
    workers = Workers()
    async with fake_pool(config_of(home, "one"), workers) as pool:
        await pool.load(None)
        waiting = asyncio.create_task(pool.audited(None))
        await settled()

        workers.spawned[0].die()

        assert await waiting is None


# -- leaving ------------------------------------------------------------------------------------


@in_event_loop
async def test_unload_waits_for_what_the_worker_was_given_and_refuses_nobody(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        given = asyncio.create_task(pool.embed(texts("given")))
        first = await workers.nth(1)
        await until(lambda: first.asked)
        unloading = asyncio.create_task(pool.unload())
        await until(lambda: loaded(pool) == {"one": "draining"})
        late = asyncio.create_task(pool.embed(texts("late")))
        await settled()
        assert len(first.asked) == 1  # the late one is for the next worker
        workers.answers = True
        first.answer(first.asked[0])

        assert (await given).fragments
        assert await unloading == ["one"]
        assert (await late).fragments
        assert [len(worker.asked) for worker in workers.spawned] == [1, 1]


@in_event_loop
async def test_unload_of_one_model_leaves_the_others(home: Path) -> None:
    async with fake_pool(config_of(home, "one", "two"), Workers()) as pool:
        await pool.load("one")
        await pool.load("two")

        assert await pool.unload("two") == ["two"]
        assert loaded(pool) == {"one": "ready"}
        assert await pool.unload("two") == []


@in_event_loop
async def test_unload_while_it_starts_serves_those_who_wait_first(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
        unloading = asyncio.create_task(pool.unload())
        await settled()
        worker.become_ready()

        assert (await asking).fragments
        assert await unloading == ["one"]
        assert (loaded(pool), worker.is_gone) == ({}, True)


@in_event_loop
async def test_a_start_that_nobody_waits_for_goes_on_until_it_is_to_leave(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
        asking.cancel()
        await settled()
        assert loaded(pool) == {"one": "starting"}
        await pool.unload()

        assert (loaded(pool), worker.is_gone) == ({}, True)


@in_event_loop
async def test_an_idle_model_leaves_by_itself_and_a_pinned_one_does_not(home: Path) -> None:
    config = config_of(home, "one", "two", limits="{idle_unload: 0.02s}")
    async with fake_pool(with_entry(config, "two", pinned=True), Workers()) as pool:
        await pool.load("two")
        await pool.load("one")
        await until(lambda: "one" not in loaded(pool))

        assert loaded(pool) == {"two": "ready"}
        assert pool.status("two").unloads_in_s is None


@in_event_loop
async def test_closing_refuses_those_who_wait_and_ends_every_worker(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
    with pytest.raises(ShuttingDownError):
        await asking
    with pytest.raises(ShuttingDownError):
        await pool.embed(texts("a"))
    assert worker.is_gone


@in_event_loop
async def test_draining_ends_when_the_last_answer_is_given(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
        await until(lambda: worker.asked)
        draining = asyncio.create_task(pool.drain(60))
        await settled()
        assert not draining.done()
        worker.answer(worker.asked[0])
        await draining

        assert (await asking).fragments


# -- room ---------------------------------------------------------------------------------------


@in_event_loop
async def test_the_least_recently_used_model_makes_room(home: Path) -> None:
    config = config_of(home, "one", "two", "three", limits="{max_loaded: 2}")
    async with fake_pool(config, Workers()) as pool:
        await pool.load("one")
        await pool.load("two")
        await pool.embed(texts("used again", model="one"))
        await pool.embed(texts("needs room", model="three"))

        assert loaded(pool) == {"one": "ready", "three": "ready"}


@in_event_loop
async def test_a_pinned_model_stays_when_room_is_needed(home: Path) -> None:
    config = config_of(home, "one", "two", "three", limits="{max_loaded: 2}")
    async with fake_pool(with_entry(config, "one", pinned=True), Workers()) as pool:
        await pool.load("one")
        await pool.load("two")
        await pool.load("three")

        assert loaded(pool) == {"one": "ready", "three": "ready"}


@in_event_loop
async def test_a_model_that_starts_is_not_evicted_before_it_has_served_those_who_wait(
    home: Path,
) -> None:
    workers = Workers(become_ready=False)
    config = config_of(home, "one", "two", limits="{max_loaded: 1}")
    async with fake_pool(config, workers) as pool:
        first = asyncio.create_task(pool.embed(texts("a", model="one")))
        starting = await workers.nth(1)
        second = asyncio.create_task(pool.embed(texts("b", model="two")))
        await asyncio.sleep(2 * QUICK.busy_s)  # then even a busy model is asked to leave
        assert len(workers.spawned) == 1
        starting.become_ready()
        assert (await first).model == "one"
        (await workers.nth(2)).become_ready()

        assert (await second).model == "two"
        assert starting.is_gone


@in_event_loop
async def test_two_busy_models_that_share_one_place_both_get_their_turn(home: Path) -> None:
    config = config_of(home, "one", "two", limits="{max_loaded: 1}")
    async with fake_pool(config, Workers()) as pool:
        asking = (pool.embed(texts(str(n), model=("one", "two")[n % 2])) for n in range(40))
        answers = await asyncio.gather(*asking)

    assert [answer.model for answer in answers] == ["one", "two"] * 20


@in_event_loop
async def test_a_model_that_finds_no_room_in_time_says_so(home: Path) -> None:
    config = config_of(home, "one", "two", limits="{max_loaded: 1}")
    config = with_entry(config, "one", pinned=True)
    async with fake_pool(config, Workers()) as pool:
        await pool.load("one")
        pool.apply(with_limits(config, request_timeout=0.05))
        with pytest.raises(NoRoomError):
            await pool.embed(texts("a", model="two"))
        pool.apply(config)
        assert (await pool.embed(texts("a", model="one"))).fragments


@in_event_loop
async def test_a_model_that_does_not_answer_in_time_says_so_and_forgets_the_request(
    home: Path,
) -> None:
    workers = Workers(answers=False)
    config = config_of(home, "one")
    async with fake_pool(config, workers) as pool:
        await pool.load("one")
        pool.apply(with_limits(config, request_timeout=0.05))
        with pytest.raises(DeadlineError):
            await pool.embed(texts("a"))

        (worker,) = workers.spawned
        assert worker.sent[-1] == wire.Cancel(id=worker.asked[0].id)
        assert pool.status().in_flight == 0


@in_event_loop
async def test_a_measured_peak_decides_who_fits_the_budget(home: Path) -> None:
    workers = Workers()
    config = config_of(home, "one", "two", limits="{memory_budget: 1000MiB}")
    async with fake_pool(config, workers) as pool:
        await pool.load("one")
        workers.spawned[0].resident_bytes = 900 * 2**20
        assert pool.status("one").memory_bytes == 900 * 2**20
        await pool.load("two")  # about 320 MiB, as nothing is known of it

        assert loaded(pool) == {"two": "ready"}
        peak = LockFile(config.homes.state).read()["one"].peak_memory_bytes
        assert peak == 900 * 2**20


def note_peak(config: Config, name: str, peak_bytes: int) -> None:
    """Have the lock remember that a worker of this model took this much memory."""
    lock = LockFile(config.homes.state)
    lock.put(name, replace(lock.read()[name], peak_memory_bytes=peak_bytes))


@pytest.mark.parametrize("peak_bytes", [2**40, 4 * 2**30 - 50 * 2**20])
@in_event_loop
async def test_one_odd_request_neither_keeps_a_model_from_loading_nor_others_for_ever(
    home: Path, peak_bytes: int
) -> None:
    """A peak over the budget, or so close to it that no other model fits beside it."""
    workers = Workers()
    config = config_of(home, "one", "two", limits="{memory_budget: 4GiB}")
    async with fake_pool(config, workers) as pool:
        await pool.load("one")
        await pool.unload()
        note_peak(config, "one", peak_bytes)
        for _ in range(40):
            for name in ("one", "two"):
                assert (await pool.embed(texts("a", model=name))).model == name

        assert loaded(pool) == {"one": "ready", "two": "ready"}
        assert len(workers.spawned) <= 30


@in_event_loop
async def test_a_model_larger_than_the_budget_is_refused(home: Path) -> None:
    config = config_of(home, "one", limits="{memory_budget: 50MiB}")
    async with fake_pool(config, Workers()) as pool:
        with pytest.raises(NoRoomError, match="50 MiB"):
            await pool.embed(texts("a"))


# -- another configuration ----------------------------------------------------------------------


@in_event_loop
async def test_an_entry_that_the_same_worker_serves_is_adopted(home: Path) -> None:
    workers = Workers()
    config = config_of(home, "one")
    async with fake_pool(config, workers) as pool:
        await pool.load("one")
        pool.apply(with_entry(config, "one", idle_unload=7200.0))

        assert (loaded(pool), len(workers.spawned)) == ({"one": "ready"}, 1)
        left_s = pool.status("one").unloads_in_s
        assert left_s is not None
        assert 7000 < left_s <= 7200


@in_event_loop
async def test_a_shorter_idle_time_counts_at_once(home: Path) -> None:
    config = config_of(home, "one")
    async with fake_pool(config, Workers()) as pool:
        await pool.load("one")
        pool.apply(with_entry(config, "one", idle_unload=0.01))
        await until(lambda: not loaded(pool))


@in_event_loop
async def test_an_entry_that_changed_is_retired_and_answers_those_who_were_there(
    home: Path,
) -> None:
    workers = Workers(become_ready=False)
    config = config_of(home, "one")
    async with fake_pool(config, workers) as pool:
        before = asyncio.create_task(pool.embed(texts("before")))
        old = await workers.nth(1)
        pool.apply(with_entry(config, "one", max_tokens=32))
        after = asyncio.create_task(pool.embed(texts("after")))
        new = await workers.nth(2)
        new.become_ready("another space")
        assert (await after).fingerprint == "another space"
        old.become_ready("the space before")

        assert (await before).fingerprint == "the space before"
        await until(lambda: old.is_gone)
        assert loaded(pool) == {"one": "ready"}
        lock = LockFile(config.homes.state)
        await until(lambda: "one" in lock.read())
        assert lock.read()["one"].fingerprint == "another space"  # a retired model writes none


@in_event_loop
async def test_lowered_limits_make_models_leave(home: Path) -> None:
    config = config_of(home, "one", "two")
    async with fake_pool(config, Workers()) as pool:
        await pool.load("one")
        await pool.load("two")
        pool.apply(with_limits(config, max_loaded=1))
        await until(lambda: loaded(pool) == {"two": "ready"})


# -- what is reported ---------------------------------------------------------------------------


class Log:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def changed(self, model: str) -> None:
        """See `Observer`."""

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """See `Observer`."""
        assert seconds >= 0
        self.lines.append(f"{model} loaded {list(phases_s)}")

    def unloaded(self, model: str, reason: str) -> None:
        """See `Observer`."""
        self.lines.append(f"{model} unloaded {reason}")

    def ran(self, model: str, batch: wire.Batch) -> None:
        """See `Observer`."""
        self.lines.append(f"{model} ran {batch.texts}")


def test_the_observer_is_told_of_loads_batches_and_why_a_model_left(home: Path) -> None:
    async def story() -> list[str]:
        workers, log = Workers(), Log()
        async with fake_pool(config_of(home, "one"), workers, observer=log) as pool:
            await pool.load(None)
            workers.spawned[0].say(
                wire.Batch(texts=3, tokens=9, padded_tokens=12, budget_tokens=99, model_s=0.1)
            )
            await pool.embed(texts("a"))
            workers.spawned[0].die()
            await until(lambda: not loaded(pool))
            await pool.load(None)
            await pool.unload()
            await pool.load(None)
        return log.lines

    loads = "one loaded ['load']"
    assert asyncio.run(story()) == [
        loads, "one ran 3", "one unloaded crash",
        loads, "one unloaded asked",
        loads, "one unloaded shutdown",
    ]  # fmt: skip


@in_event_loop
async def test_a_frame_that_makes_the_pool_fail_costs_a_worker_and_no_answer(home: Path) -> None:
    class Broken(Log):
        def ran(self, model: str, batch: wire.Batch) -> None:
            """Fail, as a bug would."""
            raise TypeError

    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers, observer=Broken()) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        first = await workers.nth(1)
        await until(lambda: first.asked)
        first.say(wire.Batch(texts=1, tokens=1, padded_tokens=1, budget_tokens=1, model_s=0.1))
        second = await workers.nth(2)
        await until(lambda: second.asked)
        second.answer(second.asked[0])

        assert (await asking).fragments


@in_event_loop
async def test_a_request_that_a_worker_refuses_fails_alone(home: Path) -> None:
    workers = Workers(answers=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        bad = asyncio.create_task(pool.embed(texts("bad")))
        good = asyncio.create_task(pool.embed(texts("good")))
        worker = await workers.nth(1)
        await until(lambda: len(worker.asked) == 2)
        worker.say(wire.Failure(id=worker.asked[0].id, code="bad_vector", message="No."))
        worker.answer(worker.asked[1])

        with pytest.raises(EmberdError) as failure:
            await bad
        assert failure.value.code == "bad_vector"
        assert (await good).fragments
