"""One worker from its spawn to its end, and what it has reported.

It reads the worker's frames and passes on what they mean: vectors to the backlog, batches to the
observer. What it keeps is about this one worker, and goes with it.
"""

import asyncio
import logging
import time
from typing import Protocol

from emberd.errors import EmberdError, from_code
from emberd.pool.backlog import Backlog
from emberd.pool.lane import Lane
from emberd.pool.observer import Observer
from emberd.pool.process import Worker
from emberd.pool.watchdog import Backoff
from emberd.worker import wire

MEMORY_SAMPLE_S = 1.0

log = logging.getLogger("emberd.pool")


class OnDamage(Protocol):
    """Called when a worker reports that it computed with damaged data."""

    def __call__(self, message: str, *, answered: bool) -> None:
        """`answered`: whether requests were answered with that data."""


class Session:
    """A worker and its frames. `wake` is set when there is something to do, or it is gone."""

    def __init__(
        self,
        worker: Worker,
        backlog: Backlog,
        *,
        backoff: Backoff,
        observer: Observer,
        wake: asyncio.Event,
        on_damage: OnDamage,
    ) -> None:
        self.worker = worker
        self.ready: wire.Ready | None = None
        self.lane: Lane | None = None  # while it takes part in answering
        self.progress: wire.Progress | None = None
        self.phases_s: dict[str, float] = {}
        self.start_error: EmberdError | None = None
        self.died = False  # its pipe has closed
        self.audited = asyncio.Event()  # it has checked what it computes with, or is gone
        self.frames = 0
        self.peak_bytes = 0
        self._is_over = False
        self._answers = 0  # requests for vectors
        self._ready_at = ""
        self._first_sent_s: float | None = None  # when a request that waited for the start went out
        self._backlog = backlog
        self._backoff = backoff
        self._observer = observer
        self._wake = wake
        self._on_damage = on_damage
        worker.listen(self._take, self._end)

    def sample_memory(self) -> int:
        """Return the worker's resident memory in bytes, and note the peak."""
        now_bytes = self.worker.memory_bytes()
        self.peak_bytes = max(self.peak_bytes, now_bytes)
        return now_bytes

    def _take(self, received: wire.Received) -> None:
        """Take a frame; wake who watches if there is something to do."""
        if self._is_over:
            return
        try:
            self._receive(received)
        except Exception as error:  # noqa: BLE001 - a bug must not leave anybody waiting
            name, kind = self._backlog.name, type(error).__name__
            log.error("%s: what its worker sent could not be taken: %s", name, kind)  # noqa: TRY400
            self._end()
        if not self.lane or not self.lane.parts or self._backlog.waiting:
            self._wake.set()

    def _end(self) -> None:
        """Nothing more comes, or nothing that can be understood."""
        self._is_over = True
        self._is_gone()
        self.audited.set()
        self._wake.set()

    def _is_gone(self) -> None:
        self.died = True
        if self.lane:
            self.lane.is_open = False

    def _receive(self, received: wire.Received) -> None:
        self.frames += 1
        frame = received.frame
        if isinstance(frame, wire.Fragments):
            self._answered(frame, received.payload)
        elif isinstance(frame, wire.Batch):
            self._observer.ran(self._backlog.name, frame)
        elif isinstance(frame, wire.Failure):
            self._backoff.worked()
            if self.lane:
                error = from_code(frame.code, frame.message, frame.hint)
                self._backlog.fail(self.lane, frame.id, error)
        elif isinstance(frame, wire.Progress):
            self.progress = frame
            self._observer.changed(self._backlog.name)
        elif isinstance(frame, wire.Ready):
            self.ready, self.progress = frame, None
            self._ready_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.phases_s = dict(frame.phases_s)
            self._first_sent_s = time.monotonic() if self._backlog.waiting else None
        elif isinstance(frame, wire.StartFailed):
            self.start_error = from_code(frame.code, frame.message, frame.hint)
        elif isinstance(frame, wire.Damaged):
            self._distrust(frame.what)
        elif isinstance(frame, wire.Audited):
            self.audited.set()

    def _answered(self, frame: wire.Fragments, payload: bytes | memoryview) -> None:
        self._backoff.worked()
        if self._first_sent_s:
            self.phases_s["first vector"] = round(time.monotonic() - self._first_sent_s, 4)
            self._first_sent_s = None
        job = self._backlog.take_vectors(self.lane, frame, payload) if self.lane else None
        if job:
            now_s = time.monotonic()
            if now_s - self._backlog.last_used_s > MEMORY_SAMPLE_S:
                self.sample_memory()
            self._backlog.last_used_s = now_s
            self._answers += job.asked.description is None

    def _distrust(self, what: str) -> None:
        """End the worker, and give what it still has to the next one."""
        self.worker.kill()
        self._is_gone()
        if self.lane:
            self._backlog.take_back(self.lane)
        message = (
            f"{self._backlog.name} computed with damaged data: {what}. It had answered"
            f" {self._answers} requests since {self._ready_at}."
        )
        log.error("%s", message)
        self._on_damage(message, answered=self._answers > 0)
