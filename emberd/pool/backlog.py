"""The requests for one model, waiting or in flight: who gets which, and what is tried again.

All workers of a model take from here. With one, everything is sent at once, and the worker decides
what runs first. With several, it goes to whoever has the fewest texts, a large request in parts,
and what would only wait in a worker waits here, for whoever is free first.

When a worker dies, the requests that may have caused it become suspects. They are sent alone,
one at a time to a worker, so that the next death shows which one it is, and no other request pays
for it.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from emberd.errors import (
    EmberdError,
    FingerprintMismatchError,
    SpaceChangingError,
    TooLargeError,
    WorkerCrashedError,
)
from emberd.pool.job import Job, Part
from emberd.pool.lane import Lane
from emberd.pool.process import Worker
from emberd.registry.spec import ModelSpec
from emberd.units import format_size
from emberd.worker import wire

FEW_TEXTS = 256  # a batch of a GPU: not divided, and does not wait, as workers let it pass others
ENOUGH_TEXTS = 2048  # for a worker to be busy until it can be sent more, also if it is a large GPU


class Backlog:
    """The requests of one model. They outlive its workers.

    `last_used_s` is when one was last answered or abandoned, in monotonic seconds. `queued_texts`
    is how many texts have no vector yet, waiting or in flight: kept, not counted, because it is
    asked for with every request. `workers` is how many share the requests, also while some of them
    are starting.

    A job waits as long as it has texts that no worker has.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.last_used_s = time.monotonic()
        self.queued_texts = 0
        self.workers = 1
        self.lanes: list[Lane] = []
        self._suspects: deque[Job] = deque()
        self._waiting: deque[Job] = deque()  # the others
        self._loads: list[asyncio.Future[None]] = []
        self._last_id = 0

    # -- how much there is ------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Requests with texts that no worker has."""
        return len(self._waiting) + len(self._suspects)

    @property
    def in_flight(self) -> int:
        """Requests that workers have."""
        return len(self._sent())

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a worker to start."""
        return bool(self._waiting or self._suspects or self._loads)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for anything."""
        return self.wanted or any(lane.parts for lane in self.lanes)

    def is_held_up(self, lane: Lane) -> bool:
        """Whether requests are waiting only for a worker to read what it has been sent."""
        return bool(self.waiting) and not lane.worker.takes_more

    def _sent(self) -> dict[Job, None]:
        """Return the jobs that workers have, in their order."""
        return dict.fromkeys(part.job for lane in self.lanes for part in lane.parts.values())

    # -- what comes in, and who gives up ----------------------------------------------------

    def add(self, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(job)
        self.queued_texts += job.unanswered

    def add_load(self) -> asyncio.Future[None]:
        """Return a future that is done when the model is ready."""
        load: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loads.append(load)
        return load

    def abandon_load(self, load: asyncio.Future[None]) -> None:
        """Forget a load that nobody waits for any longer."""
        with suppress(ValueError):
            self._loads.remove(load)

    def answer_loads(self) -> None:
        """Answer everyone who waited for the model to be ready."""
        for load in self._loads:
            if not load.done():
                load.set_result(None)
        self._loads.clear()

    def abandon(self, job: Job) -> None:
        """Forget a job that nobody waits for any longer, and have its workers forget it."""
        if self._take_out(job):
            self.queued_texts -= job.unanswered
        self.last_used_s = time.monotonic()

    def refuse_waiting(self, error: EmberdError) -> None:
        """Fail everyone who waits for a worker; requests that a worker already has continue."""
        for queue in (self._suspects, self._waiting):
            jobs = list(queue)
            queue.clear()
            for job in jobs:
                if job.parts:
                    queue.append(job)
                else:
                    self._drop(job, error)
        for load in self._loads:
            if not load.done():
                load.set_exception(error)
        self._loads.clear()

    def refuse_all(self, error: EmberdError) -> None:
        """Fail everyone, and have the workers forget what they have."""
        for job in self._sent():
            self._take_out(job)
            self._drop(job, error)
        self.refuse_waiting(error)

    # -- what goes to the workers -----------------------------------------------------------

    def open(
        self,
        worker: Worker,
        ready: wire.Ready,
        spec: ModelSpec,
        wake: Callable[[], None] = lambda: None,
    ) -> Lane:
        """Have a worker that is ready take part; for `wake` see `Lane`."""
        lane = Lane(worker=worker, ready=ready, spec=spec, wake=wake)
        self.lanes.append(lane)
        return lane

    def dispatch(self, by: Lane | None = None, *, only_begun: bool = False) -> None:
        """Send what waits, as far as the workers should have it; suspects alone.

        `by` is the lane whose worker the caller watches: who watches another is woken when that
        gets something to do.
        `only_begun`: nothing but the rest of requests of which workers have a part.

        A worker describes texts (tokens, chunks) for few requests at a time. The next of those
        stays here until then: a request that the worker has not begun must not become a suspect.
        """
        lanes = [lane for lane in self.lanes if lane.is_open]
        if self._suspects and not only_begun:
            self._send_suspect(by, lanes)
        kept: list[Job] = []
        while self._waiting and (lanes := [lane for lane in lanes if lane.takes_more]):
            job = self._waiting.popleft()
            lane = None if only_begun and not job.parts else self._lane_for(job, lanes)
            if lane is None:
                kept.append(job)
            elif self._send(job, lane, by) and job.unsent:
                self._waiting.appendleft(job)
        self._waiting.extendleft(reversed(kept))

    def _send_suspect(self, by: Lane | None, lanes: list[Lane]) -> None:
        """Send a suspect to the worker with the fewest texts once it has none; it gets no others.

        That worker is removed from `lanes`.
        """
        least = min((lane for lane in lanes if not lane.has_suspect), key=_unanswered, default=None)
        if least is None:
            return
        lanes.remove(least)
        if not least.parts:
            self._send(self._suspects.popleft(), least, by)

    def _lane_for(self, job: Job, lanes: Sequence[Lane]) -> Lane | None:
        """Return the worker for the next texts of a job; None if it should wait."""
        if job.asked.description:
            lanes = [lane for lane in lanes if lane.may_describe(job.asked.description)]
        elif self.workers > 1 and len(job.asked.texts) > FEW_TEXTS:
            lanes = [lane for lane in lanes if lane.unanswered < ENOUGH_TEXTS]
        return min(lanes, key=_unanswered, default=None)

    def _send(self, job: Job, lane: Lane, by: Lane | None) -> bool:
        """Send a job, or as much of it as one worker should have; False if the job failed."""
        offered = lane.space_of(job)
        if not lane.may_answer(job, offered):
            error: EmberdError = FingerprintMismatchError(
                f"{self.name} gives vectors of space {offered}, but the caller expects"
                f" {(job.asked.fingerprint or '')[:64]!r}.",
                hint="Embed what is stored again, or use the model that made it.",
            )
            self._drop(job, error)
            return False
        if job.fingerprint != offered:
            self._withdraw(job)
        with self._recounting(job):
            entered = job.enter(offered)
        if not entered:
            error = SpaceChangingError(
                f"{self.name} changed its vector space twice while it was answering.",
                hint="Its files are being replaced. Try again when that is done.",
            )
            self._drop(job, error)
            return False
        job.compute = lane.computes
        most = len(job.asked.texts)
        if self.workers > 1 and not job.strikes and not job.asked.description:
            most = max(FEW_TEXTS, math.ceil(most / self.workers))
        part = job.take(most)
        self._last_id += 1
        try:
            lane.send(self._last_id, part)
        except wire.FrameError:  # the HTTP API refuses such a request; other callers get this far
            job.parts.remove(part)
            largest = format_size(wire.MAX_HEADER_BYTES)
            hint = "Send the texts in several requests."
            self._drop(job, TooLargeError(f"The texts are larger than {largest}.", hint=hint))
            return False
        if lane is not by and len(lane.parts) == 1:
            lane.wake()
        return True

    # -- what comes back --------------------------------------------------------------------

    def take_vectors(
        self, lane: Lane, frame: wire.Fragments, payload: bytes | memoryview
    ) -> Job | None:
        """Keep what a worker answered; return the job when that completes it."""
        part = lane.parts.get(frame.id)
        if part is None:
            return None
        job, left = part.job, part.left
        with self._recounting(job):
            part.receive(frame, payload)
        lane.unanswered -= left - part.left
        if part.left:
            return None
        lane.remove(frame.id)
        if job.unanswered:
            return None
        job.finish(self.name)
        return job

    def fail(self, lane: Lane, request_id: int, error: EmberdError) -> None:
        """Fail a request, as its worker says."""
        if request_id in lane.parts:
            job = lane.remove(request_id).job
            self.last_used_s = time.monotonic()
            self._take_out(job)
            self._drop(job, error)

    def take_back(self, lane: Lane) -> None:
        """Take back everything from a worker that may have answered wrongly.

        What is not finished begins again from the start: also what others have, if some of it may
        have come from that worker.
        """
        sent = [part.job for part in lane.parts.values()]
        others = (*self._sent(), *self._suspects, *self._waiting)
        again = list(dict.fromkeys([*sent, *(job for job in others if job.has_answers)]))
        for job in again:
            self._take_out(job)
            with self._recounting(job):
                job.begin_again()
        self._wait_again(again)

    def strike(self, lane: Lane) -> tuple[int, int]:
        """After a worker's death: queue again what may be tried again, and fail the rest.

        A request gets a strike if no text was answered of the parts that the worker had.

        Returns:
            How many requests the worker had, and how many of them got a strike.
        """
        self.lanes.remove(lane)
        lost: dict[Job, list[Part]] = {}
        for part in lane.parts.values():
            lost.setdefault(part.job, []).append(part)
        strikes_before = sum(job.strikes for job in lost)
        for job in lost:
            self._unqueue(job)
        for request_id in list(lane.parts):
            lane.remove(request_id)
        again = []
        for job, parts in lost.items():
            if job.strike(parts):
                again.append(job)
            else:
                error = WorkerCrashedError(
                    f"The worker of {self.name} died twice on this request.",
                    hint="Send its texts one by one to find the one that causes it.",
                )
                self._drop(job, error)
        self._wait_again(again)
        return len(lost), sum(job.strikes for job in lost) - strikes_before

    # -- inside -----------------------------------------------------------------------------

    def _drop(self, job: Job, error: EmberdError) -> None:
        """Fail a job that waits no longer."""
        self._withdraw(job)
        self.queued_texts -= job.unanswered
        job.fail(error)

    def _withdraw(self, job: Job) -> None:
        """Have all workers forget a job."""
        if job.parts:
            for lane in self.lanes:
                lane.withdraw(job)

    def _unqueue(self, job: Job) -> bool:
        """Remove a job from those that wait; False if it did not."""
        queue = self._suspects if job.strikes else self._waiting
        if not job.unsent or job not in queue:
            return False
        queue.remove(job)
        return True

    def _take_out(self, job: Job) -> bool:
        """Remove a job wherever it is; False if it was nowhere."""
        was_here = self._unqueue(job) or bool(job.parts)
        self._withdraw(job)
        return was_here

    @contextmanager
    def _recounting(self, job: Job) -> Iterator[None]:
        """Keep `queued_texts` right while vectors of a job come or are discarded."""
        self.queued_texts -= job.unanswered
        try:
            yield
        finally:
            self.queued_texts += job.unanswered

    def _wait_again(self, jobs: Sequence[Job]) -> None:
        """Put jobs in front of those that wait, in their order."""
        for job in reversed(jobs):
            (self._suspects if job.strikes else self._waiting).appendleft(job)


def _unanswered(lane: Lane) -> int:
    return lane.unanswered
