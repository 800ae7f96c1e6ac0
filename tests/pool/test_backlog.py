"""Waiting and in-flight requests: which is sent next, which is tried again, which fails."""

from dataclasses import replace
from typing import Any

import pytest

from emberd.errors import (
    DeadlineError,
    FingerprintMismatchError,
    TooLargeError,
    WorkerCrashedError,
)
from emberd.pool.backlog import Backlog
from emberd.pool.job import Job
from emberd.pool.request import EmbedRequest
from emberd.spaces.fingerprint import of_late
from emberd.worker import wire
from tests.event_loop import in_event_loop
from tests.pool.fake_worker import DIMENSIONS, SPACE, SPEC, FakeWorker, answer_to
from tests.pool.fake_worker import READY as ALONE

READY = replace(ALONE, equivalent=["as good"])


class Scene:
    """A backlog, and a worker that answers nothing by itself."""

    def __init__(self) -> None:
        self.backlog = Backlog("one")
        self.worker = self.replace_worker()

    def replace_worker(self, worker: FakeWorker | None = None) -> FakeWorker:
        """Use another worker from now on."""
        start = wire.Start(version="", spec={}, hub="", cache="", lock=None)
        self.worker = worker or FakeWorker(start, 1, answers=False)
        self.backlog.lanes.clear()
        self.lane = self.backlog.open(self.worker, READY, SPEC)
        return self.worker

    def add(self, *texts: str, **options: Any) -> Job:  # noqa: ANN401 - as `EmbedRequest` has them
        """Queue a job."""
        asked = EmbedRequest(texts=texts, **options)
        job = Job(asked, prompt="", dimensions=DIMENSIONS)
        self.backlog.add(job)
        return job

    def dispatch(self) -> list[list[str]]:
        """Dispatch, and return the texts of all requests that the worker has been sent."""
        self.backlog.dispatch(self.lane)
        return [list(frame.texts) for frame in self.worker.asked]

    def answer(self, which: int, *places: int) -> None:
        """Have the worker answer a request, or some of its texts."""
        self.backlog.take_vectors(self.lane, *answer_to(self.worker.asked[which], *places))


@in_event_loop
async def test_everything_that_waits_is_sent_in_its_order() -> None:
    scene = Scene()
    for text in "abc":
        scene.add(text)

    assert scene.backlog.wanted
    assert scene.dispatch() == [["a"], ["b"], ["c"]]
    assert (scene.backlog.waiting, scene.backlog.in_flight) == (0, 3)
    assert scene.backlog.busy
    assert not scene.backlog.wanted


@in_event_loop
async def test_a_job_is_answered_when_its_last_text_is() -> None:
    scene = Scene()
    job = scene.add("a", "b", "c")
    scene.dispatch()
    scene.answer(0, 0, 2)
    assert scene.backlog.queued_texts == 1
    assert not job.done.done()
    scene.answer(0, 1)

    assert (await job.done).fragments == [b"v"] * 3
    assert not scene.backlog.busy


@in_event_loop
async def test_what_a_worker_answers_that_nobody_waits_for_is_ignored() -> None:
    scene = Scene()
    job = scene.add("a")
    scene.dispatch()
    scene.backlog.abandon(job)
    scene.answer(0)
    scene.backlog.fail(scene.lane, scene.worker.asked[0].id, DeadlineError("late"))

    assert not job.done.done()


@in_event_loop
async def test_nothing_more_is_sent_to_a_worker_that_does_not_read() -> None:
    scene = Scene()
    scene.worker.takes_more = False
    scene.add("a")

    assert scene.dispatch() == []
    assert scene.backlog.is_held_up(scene.lane)
    scene.worker.takes_more = True
    assert not scene.backlog.is_held_up(scene.lane)
    assert scene.dispatch() == [["a"]]


@in_event_loop
async def test_tokens_are_described_for_one_request_at_a_time_and_vectors_pass_by() -> None:
    scene = Scene()
    scene.add("t1", description="tokens")
    scene.add("t2", description="tokens")
    scene.add("v")
    scene.add("t3", description="tokens")

    assert scene.dispatch() == [["t1"], ["v"]]
    scene.answer(0)
    assert scene.dispatch()[2:] == [["t2"]]
    scene.answer(2)
    assert scene.dispatch()[3:] == [["t3"]]


@in_event_loop
async def test_suspects_of_a_death_are_sent_alone_and_before_all_others() -> None:
    scene = Scene()
    scene.add("a")
    scene.add("b")
    scene.dispatch()
    assert scene.backlog.strike(scene.lane) == (2, 2)
    scene.add("new")

    scene.replace_worker()
    assert scene.dispatch() == [["a"]]
    assert scene.dispatch() == [["a"]]  # nothing else while it has the suspect
    scene.answer(0)
    assert scene.dispatch() == [["a"], ["b"]]
    scene.answer(1)
    assert scene.dispatch() == [["a"], ["b"], ["new"]]


@in_event_loop
async def test_only_what_was_not_answered_is_sent_again_and_gets_no_strike() -> None:
    scene = Scene()
    scene.add("a", "b")
    scene.dispatch()
    scene.answer(0, 0)

    assert scene.backlog.strike(scene.lane) == (1, 0)
    scene.replace_worker()
    assert scene.dispatch() == [["b"]]


@in_event_loop
async def test_the_second_strike_fails_a_request_and_no_other() -> None:
    scene = Scene()
    bad, good = scene.add("bad"), scene.add("good")
    scene.dispatch()
    scene.backlog.strike(scene.lane)
    scene.replace_worker()
    scene.dispatch()

    assert scene.backlog.strike(scene.lane) == (1, 1)
    with pytest.raises(WorkerCrashedError):
        await bad.done
    scene.replace_worker()
    assert scene.dispatch() == [["good"]]
    scene.answer(0)
    assert (await good.done).fragments


@in_event_loop
async def test_what_is_taken_back_is_computed_again_from_the_start() -> None:
    scene = Scene()
    scene.add("a", "b")
    scene.add("c")
    scene.dispatch()
    scene.answer(0, 0)
    scene.add("new")
    scene.backlog.take_back(scene.lane)

    scene.replace_worker()
    assert scene.dispatch() == [["a", "b"], ["c"], ["new"]]


@in_event_loop
async def test_an_abandoned_request_is_cancelled_where_it_is() -> None:
    scene = Scene()
    sent = scene.add("sent")
    scene.dispatch()
    waiting = scene.add("waiting")
    scene.backlog.abandon(waiting)
    scene.backlog.abandon(sent)

    assert scene.worker.sent[1:] == [wire.Cancel(id=scene.worker.asked[0].id)]
    assert not scene.backlog.busy


@in_event_loop
async def test_refusing_those_that_wait_leaves_what_the_worker_has() -> None:
    scene = Scene()
    sent = scene.add("sent")
    scene.dispatch()
    waiting, load = scene.add("waiting"), scene.backlog.add_load()
    scene.backlog.refuse_waiting(DeadlineError("late"))

    assert not sent.done.done()
    for refused in (waiting.done, load):
        with pytest.raises(DeadlineError):
            await refused
    scene.backlog.refuse_all(DeadlineError("late"))
    with pytest.raises(DeadlineError):
        await sent.done
    assert scene.worker.sent[-1] == wire.Cancel(id=scene.worker.asked[0].id)


@in_event_loop
async def test_loads_are_answered_together_and_can_be_abandoned() -> None:
    backlog = Backlog("one")
    first, second = backlog.add_load(), backlog.add_load()
    backlog.abandon_load(second)
    assert backlog.wanted
    backlog.answer_loads()

    await first
    assert not second.done()
    assert not backlog.wanted


@pytest.mark.parametrize("expected", [SPACE, "as good", None])
@in_event_loop
async def test_a_space_that_is_the_same_is_served(expected: str | None) -> None:
    scene = Scene()
    scene.add("a", fingerprint=expected)

    assert scene.dispatch() == [["a"]]


@pytest.mark.parametrize("expected", [SPACE, "as good"])
@in_event_loop
async def test_chunks_of_texts_that_are_read_whole_are_of_another_space(expected: str) -> None:
    scene = Scene()
    spans = [[(0, 1)]]
    late = scene.add("a", fingerprint=of_late(expected), spans=spans)
    plain = scene.add("b", fingerprint=expected, spans=spans)

    assert scene.dispatch() == [["a"]]
    assert late.fingerprint == of_late(SPACE)
    with pytest.raises(FingerprintMismatchError):
        await plain.done


@in_event_loop
async def test_another_space_than_the_one_expected_is_refused_and_never_sent() -> None:
    scene = Scene()
    job = scene.add("a", fingerprint="another")

    assert scene.dispatch() == []
    with pytest.raises(FingerprintMismatchError):
        await job.done


@in_event_loop
async def test_texts_too_large_for_a_frame_fail_alone() -> None:
    scene = Scene()

    class Small(FakeWorker):
        def send(self, frame: wire.Frame) -> None:
            if isinstance(frame, wire.Embed) and "large" in frame.texts:
                raise wire.FrameError("too many bytes")
            super().send(frame)

    scene.replace_worker(Small(scene.worker.start, 2, answers=False))
    large = scene.add("large")
    scene.add("small")

    assert scene.dispatch() == [["small"]]
    with pytest.raises(TooLargeError):
        await large.done


@in_event_loop
async def test_how_many_texts_wait_is_kept_through_everything() -> None:
    scene = Scene()
    jobs = [scene.add("a", "b", "c"), scene.add("d"), scene.add("e", fingerprint="another space")]

    def kept() -> int:
        """Return what is kept, and compare it with a count."""
        open_jobs = [job for job in jobs if not job.done.done()]
        assert scene.backlog.queued_texts == sum(job.unanswered for job in open_jobs)
        return scene.backlog.queued_texts

    assert kept() == 5
    scene.dispatch()  # which refuses the last
    assert kept() == 4
    scene.answer(0, 1)
    assert kept() == 3
    scene.backlog.take_back(scene.lane)
    assert kept() == 4
    scene.dispatch()
    scene.answer(2, 0, 1)
    assert kept() == 2
    for _ in range(2):  # twice, on the same request
        scene.backlog.strike(scene.lane)
        scene.replace_worker()
        scene.dispatch()
        kept()
    jobs.append(scene.add("f", "g"))
    assert kept() >= 2
    scene.backlog.abandon(jobs[-1])
    jobs.pop()
    kept()
    jobs.append(scene.add("h"))
    scene.backlog.refuse_all(DeadlineError("late"))
    assert kept() == 0
