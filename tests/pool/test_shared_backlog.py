"""Several workers and one backlog, in any order of events: each text is answered as itself."""

import random
from collections import Counter

import pytest

from emberd.errors import DeadlineError, WorkerCrashedError
from emberd.pool import backlog as module
from emberd.pool.backlog import Backlog
from emberd.pool.job import Job
from emberd.pool.lane import Lane
from emberd.pool.request import Description, EmbedRequest
from emberd.worker import wire
from tests.event_loop import in_event_loop
from tests.pool.fake_worker import DIMENSIONS, READY, SPEC, FakeWorker, answer_to

WORKERS = 3


class Story:
    """Random events; `jobs` maps each job to the texts that it has."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - reproducible, no secret
        self.backlog = Backlog("one")
        self.backlog.workers = WORKERS
        self.jobs: list[Job] = []
        self.abandoned: set[Job] = set()
        for _ in range(WORKERS):
            self.open()

    def open(self) -> None:
        """Have another worker become ready."""
        start = wire.Start(version="", spec={}, hub="", cache="", lock=None)
        worker = FakeWorker(start, 1, answers=False)
        self.backlog.dispatch(self.backlog.open(worker, READY, SPEC))

    def add(self) -> None:
        """Send a request."""
        number, count = len(self.jobs), self.draw.choice((1, 1, 2, 7, 12, 40))
        wanted: Description | None = self.draw.choice((None, None, None, "tokens", "chunks"))
        texts = [chr(self.draw.randrange(97, 123)) for _ in range(count)]
        asked = EmbedRequest(texts=texts, description=wanted)
        job = Job(asked, prompt="", dimensions=DIMENSIONS)
        assert len(self.jobs) == number
        self.jobs.append(job)
        self.backlog.add(job)

    def answer(self, lane: Lane) -> None:
        """Have a worker answer some texts of a request that it has."""
        if not lane.parts:
            return
        request_id, part = self.draw.choice([*lane.parts.items()])
        (frame,) = (
            asked
            for asked in lane.worker.asked  # type: ignore[attr-defined]
            if asked.id == request_id
        )
        missing = [
            place for place, index in enumerate(part.indices) if index not in part.job._fragments
        ]
        places = self.draw.sample(missing, self.draw.randint(1, len(missing)))
        said, _ = answer_to(frame, *places) if len(places) > 1 or places[0] else one(frame)
        payload = "".join(frame.texts[place] for place in said.indices).encode()
        self.backlog.take_vectors(lane, said, payload)

    def happen(self) -> None:
        """Let something happen, then look at whether all that is kept is right."""
        what = self.draw.random()
        lane = self.draw.choice(self.backlog.lanes)
        if what < 0.35:
            self.add()
        elif what < 0.40:
            self.backlog.strike(lane)
            self.open()
        elif what < 0.42:
            self.backlog.take_back(lane)
        elif what < 0.45:
            job = self.draw.choice(self.jobs or [None])
            if job and not job.done.done():
                self.backlog.abandon(job)
                self.abandoned.add(job)
        elif what < 0.47 and lane.parts:
            self.backlog.fail(lane, next(iter(lane.parts)), DeadlineError("no"))
        else:
            self.answer(lane)
        self.backlog.dispatch(self.draw.choice(self.backlog.lanes))
        self.check()

    def open_jobs(self) -> list[Job]:
        """Return the jobs that somebody waits for."""
        return [job for job in self.jobs if not job.done.done() and job not in self.abandoned]

    def check(self) -> None:
        """Compare what is kept with a count."""
        jobs = self.open_jobs()
        assert self.backlog.queued_texts == sum(job.unanswered for job in jobs)
        queued = [*self.backlog._waiting, *self.backlog._suspects]
        assert {job for job in jobs if job.unsent} == {*queued}
        assert len(queued) == len({*queued})
        for lane in self.backlog.lanes:
            assert lane.unanswered == sum(part.left for part in lane.parts.values())
            assert all(part in part.job.parts for part in lane.parts.values())
            suspects = [part for part in lane.parts.values() if part.is_suspect]
            assert not suspects or len(lane.parts) == 1
            described = Counter(part.job.asked.description for part in lane.parts.values())
            assert described["tokens"] == lane.described["tokens"] <= wire.TOKENIZED_AT_ONCE
            assert described["chunks"] == lane.described["chunks"] <= wire.CHUNKED_AT_ONCE
        for job in self.jobs:
            sent = [index for part in job.parts for index in part.indices]
            assert len(sent) == len({*sent})

    def finish(self) -> None:
        """Answer everything."""
        while self.open_jobs():
            for lane in self.backlog.lanes:
                self.backlog.dispatch(lane)
                while lane.parts:
                    self.answer(lane)
            self.check()


def one(frame: wire.Frame) -> tuple[wire.Fragments, bytes]:
    """Answer the first text of a request alone, which for `answer_to` would mean all."""
    said, payload = answer_to(frame)
    said.indices[:], said.sizes[:] = [0], [1]
    return said, payload[:1]


@pytest.mark.parametrize("seed", range(20))
@in_event_loop
async def test_every_text_is_answered_as_itself_whatever_happens(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW_TEXTS", 3)
    monkeypatch.setattr(module, "ENOUGH_TEXTS", 20)
    story = Story(seed)
    for _ in range(400):
        story.happen()
    story.finish()

    assert story.backlog.queued_texts == 0
    assert not story.backlog.busy
    answered = 0
    for job in story.jobs:
        if job in story.abandoned:
            continue
        failure = job.done.exception()
        if failure:
            assert isinstance(failure, WorkerCrashedError | DeadlineError)
            continue
        answered += 1
        assert job.done.result().fragments == [text.encode() for text in job.asked.texts]
    assert answered > 30
