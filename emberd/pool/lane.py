"""The way to one worker: what it has been sent and has not answered."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from emberd.pool.job import Job, Part
from emberd.pool.process import Worker
from emberd.pool.request import Description
from emberd.registry.spec import ModelSpec
from emberd.spaces.fingerprint import fingerprint, of_dtype, of_late
from emberd.spaces.lock import LockEntry
from emberd.worker import wire

BETWEEN = ", "
AT_ONCE: Mapping[Description, int] = {
    "tokens": wire.TOKENIZED_AT_ONCE,
    "chunks": wire.CHUNKED_AT_ONCE,
}


@dataclass(slots=True, eq=False, kw_only=True)
class Lane:
    """A worker that is ready, and the parts of jobs that it has, by the id of their request.

    `unanswered` is how many texts it still has to answer: kept, not counted. `wake` is called when
    it gets something while it had nothing to watch for.
    """

    worker: Worker
    ready: wire.Ready
    spec: ModelSpec
    wake: Callable[[], None] = lambda: None
    is_open: bool = True  # until its worker is gone
    parts: dict[int, Part] = field(default_factory=dict)
    unanswered: int = 0
    described: Counter[Description] = field(default_factory=Counter)  # which it does beside vectors

    @property
    def has_suspect(self) -> bool:
        """Whether it has a request that may have killed a worker; then it has nothing else."""
        return len(self.parts) == 1 and next(iter(self.parts.values())).is_suspect

    @property
    def computes(self) -> str:
        """What its worker computes with: the backend, and in which numbers."""
        return f"{self.ready.backend} {self.ready.compute}"

    @property
    def takes_more(self) -> bool:
        """Whether it may be sent something now."""
        return self.worker.takes_more and not self.has_suspect

    def may_describe(self, what: Description) -> bool:
        """Whether the worker would begin another such request at once."""
        return self.described[what] < AT_ONCE[what]

    def send(self, request_id: int, part: Part) -> None:
        """Send a part to the worker. Raises `FrameError` if it is too large."""
        self.worker.send(part.job.to_frame(request_id, part))
        self.parts[request_id] = part
        self.unanswered += part.left
        if part.job.asked.description:
            self.described[part.job.asked.description] += 1

    def remove(self, request_id: int) -> Part:
        """Forget a part, answered or not."""
        part = self.parts.pop(request_id)
        part.job.parts.remove(part)
        self.unanswered -= part.left
        if part.job.asked.description:
            self.described[part.job.asked.description] -= 1
        return part

    def withdraw(self, job: Job) -> None:
        """Forget what it has of a job, and have the worker forget it."""
        for request_id, part in list(self.parts.items()):
            if part.job is job:
                self.remove(request_id)
                self.worker.send(wire.Cancel(id=request_id))

    def space_of(self, job: Job) -> str:
        """Return the fingerprint of what a job gets; see `Answer.fingerprint`."""
        return BETWEEN.join(_made_of(self._float_space_of(job), job))

    def _float_space_of(self, job: Job) -> str:
        """Return that of its float32 vectors, which depends on whether they are normalized."""
        if job.asked.normalize in (None, self.spec.normalize):
            return self.ready.fingerprints[str(job.dimensions)]
        now = LockEntry.from_dict(self.ready.lock).now
        return fingerprint(
            self.spec,
            files=now.files,
            options=replace(now.options, normalize=job.asked.normalize),
            dimensions=job.dimensions,
        )

    def may_answer(self, job: Job, space: str) -> bool:
        """Whether vectors of this space are what the job's caller expects."""
        if job.asked.fingerprint in (None, *space.split(BETWEEN)):
            return True
        if job.asked.normalize not in (None, self.spec.normalize):
            return False
        return any(
            job.asked.fingerprint in _made_of(equivalent, job)
            for equivalent in self.ready.equivalent
        )


def _made_of(space: str, job: Job) -> list[str]:
    """Return the fingerprints, by dtype, of what a job gets where plain vectors are of `space`."""
    space = space if job.asked.spans is None else of_late(space)
    return [of_dtype(space, dtype, job.step) for dtype in job.asked.dtypes]
