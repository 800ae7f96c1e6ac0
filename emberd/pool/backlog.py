"""The requests for one model, waiting or in flight: which is sent next, and which is tried again.

When the worker dies, the requests that may have caused it become suspects. They are sent alone,
one at a time, so that the next death shows which one it is, and no other request pays for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from emberd.errors import (
    EmberdError,
    FingerprintMismatchError,
    SpaceChangingError,
    TooLargeError,
    WorkerCrashedError,
)
from emberd.pool.job import Job
from emberd.pool.process import Worker
from emberd.registry.spec import ModelSpec
from emberd.spaces.fingerprint import fingerprint
from emberd.spaces.lock import LockEntry
from emberd.units import format_size
from emberd.worker import wire


class Backlog:
    """The requests of one model. They outlive its workers.

    `last_used_s` is when one was last answered or abandoned, in monotonic seconds. `queued_texts`
    is how many texts have no vector yet, waiting or in flight: kept, not counted, because it is
    asked for with every request.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.last_used_s = time.monotonic()
        self.queued_texts = 0
        self._waiting: deque[Job] = deque()
        self._in_flight: dict[int, Job] = {}
        self._loads: list[asyncio.Future[None]] = []
        self._last_id = 0

    # -- how much there is ------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Requests that no worker has."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Requests that the worker has."""
        return len(self._in_flight)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a worker to start."""
        return bool(self._waiting or self._loads)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for anything."""
        return bool(self._waiting or self._in_flight or self._loads)

    def is_held_up(self, worker: Worker) -> bool:
        """Whether requests are waiting only for the worker to read what it has been sent."""
        return bool(self._waiting) and not worker.takes_more

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

    def abandon(self, job: Job, worker: Worker | None) -> None:
        """Forget a job that nobody waits for any longer, and have the worker forget it."""
        with suppress(ValueError):
            self._waiting.remove(job)
            self.queued_texts -= job.unanswered
        for request_id, other in list(self._in_flight.items()):
            if other is job:
                del self._in_flight[request_id]
                self.queued_texts -= job.unanswered
                if worker:
                    worker.send(wire.Cancel(id=request_id))
        self.last_used_s = time.monotonic()

    def refuse_waiting(self, error: EmberdError) -> None:
        """Fail everyone who waits for a worker; requests that a worker already has continue."""
        for job in self._waiting:
            self._drop(job, error)
        self._waiting.clear()
        for load in self._loads:
            if not load.done():
                load.set_exception(error)
        self._loads.clear()

    def refuse_all(self, error: EmberdError, worker: Worker | None) -> None:
        """Fail everyone, and have the worker forget what it has."""
        for request_id, job in self._in_flight.items():
            self._drop(job, error)
            if worker:
                worker.send(wire.Cancel(id=request_id))
        self._in_flight.clear()
        self.refuse_waiting(error)

    # -- what goes to the worker ------------------------------------------------------------

    def dispatch(self, worker: Worker, ready: wire.Ready, spec: ModelSpec) -> None:
        """Send what waits, as far as the worker reads it; suspects go first, one at a time.

        The worker describes tokens for one request at a time. The next of those stays here until
        then: a request that the worker has not begun must not become a suspect.
        """
        if not self._waiting or any(job.strikes for job in self._in_flight.values()):
            return
        suspect = next((job for job in self._waiting if job.strikes), None)
        if suspect:
            if not self._in_flight:
                self._waiting.remove(suspect)
                self._send(suspect, worker, ready, spec)
            return
        describes = any(job.wants_tokens for job in self._in_flight.values())
        kept: list[Job] = []
        while self._waiting and worker.takes_more:
            job = self._waiting.popleft()
            if job.wants_tokens and describes:
                kept.append(job)
            else:
                describes = describes or job.wants_tokens
                self._send(job, worker, ready, spec)
        self._waiting.extendleft(reversed(kept))

    def _send(self, job: Job, worker: Worker, ready: wire.Ready, spec: ModelSpec) -> None:
        offered = _space_of(job, ready, spec)
        equivalent = ready.equivalent if offered in ready.fingerprints.values() else ()
        if job.expected_fingerprint not in (None, offered, *equivalent):
            error: EmberdError = FingerprintMismatchError(
                f"{self.name} gives vectors of space {offered}, but the caller expects"
                f" {(job.expected_fingerprint or '')[:64]!r}.",
                hint="Embed what is stored again, or use the model that made it.",
            )
            self._drop(job, error)
            return
        with self._recounting(job):
            entered = job.enter(offered)
        if not entered:
            error = SpaceChangingError(
                f"{self.name} changed its vector space twice while it was answering.",
                hint="Its files are being replaced. Try again when that is done.",
            )
            self._drop(job, error)
            return
        self._last_id += 1
        try:
            worker.send(job.to_frame(self._last_id))
        except wire.FrameError:  # the HTTP API refuses such a request; other callers get this far
            most = format_size(wire.MAX_HEADER_BYTES)
            hint = "Send the texts in several requests."
            self._drop(job, TooLargeError(f"The texts are larger than {most}.", hint=hint))
        else:
            self._in_flight[self._last_id] = job

    # -- what comes back --------------------------------------------------------------------

    def take_vectors(self, frame: wire.Fragments, payload: bytes) -> Job | None:
        """Keep what a worker answered; return the job when that completes it."""
        job = self._in_flight.get(frame.id)
        if job is None:
            return None
        with self._recounting(job):
            job.receive(frame, payload)
        if job.unanswered:
            return None
        del self._in_flight[frame.id]
        job.finish(self.name)
        return job

    def fail(self, request_id: int, error: EmberdError) -> None:
        """Fail a request, as its worker says."""
        job = self._in_flight.pop(request_id, None)
        if job:
            self.last_used_s = time.monotonic()
            self._drop(job, error)

    def take_back(self) -> None:
        """Take back everything from the worker; the next one computes it again from the start."""
        for job in self._in_flight.values():
            with self._recounting(job):
                job.begin_again()
        self._wait_again(list(self._in_flight.values()))

    def strike(self) -> tuple[int, int]:
        """After the worker's death: queue again what may be tried again, and fail the rest.

        Returns:
            How many requests the worker had, and how many of them got a strike.
        """
        jobs = list(self._in_flight.values())
        strikes_before = sum(job.strikes for job in jobs)
        again = []
        for job in jobs:
            if job.strike():
                again.append(job)
            else:
                error = WorkerCrashedError(
                    f"The worker of {self.name} died twice on this request.",
                    hint="Send its texts one by one to find the one that causes it.",
                )
                self._drop(job, error)
        self._wait_again(again)
        return len(jobs), sum(job.strikes for job in jobs) - strikes_before

    def _drop(self, job: Job, error: EmberdError) -> None:
        """Fail a job that leaves."""
        self.queued_texts -= job.unanswered
        job.fail(error)

    @contextmanager
    def _recounting(self, job: Job) -> Iterator[None]:
        """Keep `queued_texts` right while vectors of a job come or are discarded."""
        self.queued_texts -= job.unanswered
        yield
        self.queued_texts += job.unanswered

    def _wait_again(self, jobs: list[Job]) -> None:
        """Put jobs back at the front of the queue, in their order."""
        self._waiting.extendleft(reversed(jobs))
        self._in_flight.clear()


def _space_of(job: Job, ready: wire.Ready, spec: ModelSpec) -> str:
    """Return the fingerprint of what `job` gets, which depends on whether it is normalized."""
    if job.normalize in (None, spec.normalize):
        return ready.fingerprints[str(job.dimensions)]
    now = LockEntry.from_dict(ready.lock).now
    return fingerprint(
        spec,
        files=now.files,
        options=replace(now.options, normalize=job.normalize),
        dimensions=job.dimensions,
    )
