"""One model's life: cold -> starting -> ready -> draining -> cold, and failed.

One task owns the state. It exists while there is something to do: it starts a worker, hands it
jobs, restarts it when it dies, and ends it. Everybody else only leaves wishes (`submit`, `load`,
`leave`) and wakes the task.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from emberd import __version__
from emberd.aside import aside
from emberd.config.load import is_built_in
from emberd.config.paths import Homes
from emberd.errors import (
    EmberdError,
    FingerprintMismatchError,
    SpaceChangingError,
    TooLargeError,
    WorkerCrashedError,
    WorkerStartError,
    from_code,
)
from emberd.models.availability import find_here
from emberd.models.folder import Difference
from emberd.pool.eviction import Resident
from emberd.pool.job import Job
from emberd.pool.memory import cpu_seconds, memory_bytes, release_free_memory
from emberd.pool.observer import Observer
from emberd.pool.process import WorkerProcess
from emberd.registry.spec import ModelSpec
from emberd.spaces.fingerprint import fingerprint
from emberd.spaces.lock import LockEntry, LockFile
from emberd.units import format_size
from emberd.worker import wire

State = Literal["cold", "starting", "ready", "draining", "failed"]

DEAD_GRACE_S = 1.0  # for one whose pipe closed: most likely it is gone already
END_GRACE_S = 10.0  # for a worker that has nothing left to answer
VECTORS_DAMAGED = "vectors_damaged"  # the code of a warning
STALL_S = 60.0  # without a frame and without processor time, a start is given up
HUNG_S = 20.0  # a batch takes a tenth of a second; without either for so long, its worker is killed
STALL_CHECK_S = 5.0
UNREAD_CHECK_S = 0.05  # nothing wakes who waits for a pipe to empty
PULSE_S = 1.0
MAX_DEATHS_IN_A_ROW = 5
MEMORY_SAMPLE_S = 1.0
MAX_BACKOFF_S = 60.0

log = logging.getLogger("emberd.pool")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a model needs of the pool."""

    homes: Homes
    lock: LockFile
    idle_unload_s: Callable[[], float]
    make_room: Callable[["Model"], Awaitable[bool]]  # False: nobody wants it any more
    changed: Callable[[], None]
    observer: Observer


class Model:
    """A registry entry and, at times, its worker."""

    def __init__(self, spec: ModelSpec, around: Surroundings) -> None:
        self.spec = spec
        self._around = around
        self.state: State = "cold"
        self.ready: wire.Ready | None = None
        self.phases_s: dict[str, float] | None = None  # of the last start
        self.progress: wire.Progress | None = None
        self.last_error: EmberdError | None = None
        self.notes: list[str] = []  # what the folder has otherwise, as its last start found
        self.damage: dict[str, str] | None = None  # a standing warning of answers that may be wrong
        self.loads = 0
        self.last_load_s: float | None = None
        self.has_room = False  # counts against the limits
        self._waiting: deque[Job] = deque()
        self._in_flight: dict[int, Job] = {}
        self._load_wishes: list[asyncio.Future[None]] = []
        self._leave_reason: str | None = None
        self._retired_for: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._gone = asyncio.Event()
        self._worker: WorkerProcess | None = None
        self._worker_died = False
        self._stood_still = False  # its last start
        self._start_error: EmberdError | None = None
        self._first_sent_s: float | None = None  # when a request that waited for the start went out
        self._next_id = 0
        self._frames = 0  # ever received
        self._failures_in_a_row = 0
        self._answers, self._ready_at = 0, ""  # requests for vectors that this worker answered
        self._retry_at_s = -math.inf
        self._last_used_s = time.monotonic()
        self._peak_bytes = 0
        self._remembering: asyncio.Task[None] | None = None  # what its last start taught

    # -- wishes, from anybody ---------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; its `done` answers. Raises the last error while a failed start backs off."""
        self._refuse_while_backing_off()
        self._waiting.append(job)
        self._poke()

    async def load(self) -> None:
        """Return when the model is ready; raise what keeps it from it."""
        if self.state == "ready" and not self._leave_reason:
            return
        self._refuse_while_backing_off()
        wish: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load_wishes.append(wish)
        self._poke()
        try:
            await wish
        finally:
            if wish in self._load_wishes:
                self._load_wishes.remove(wish)

    def leave(self, reason: str) -> None:
        """Wish that the worker ends once it has answered what it was given."""
        if self._task:
            self._leave_reason = self._leave_reason or reason
            self._wake.set()

    async def unload(self, reason: str) -> bool:
        """Make it leave and return when its memory is back; False when it was not loaded."""
        if not self._task:
            return False
        gone = self._gone
        self.leave(reason)
        await gone.wait()
        return True

    def retire(self, reason: str) -> None:
        """Answer who is there already, and never again be asked: another model takes its name."""
        self._retired_for = reason
        self.leave(reason)

    def adopt(self, spec: ModelSpec) -> None:
        """Take another entry that the same worker serves, and look at the limits again."""
        self.spec = spec
        self._wake.set()

    def refuse_waiting(self, error: EmberdError) -> None:
        """Fail who waits for a worker; what a worker has already goes on."""
        for job in self._waiting:
            job.fail(error)
        self._waiting.clear()
        for wish in self._load_wishes:
            if not wish.done():
                wish.set_exception(error)
        self._load_wishes.clear()
        self._wake.set()

    def refuse_all(self, error: EmberdError) -> None:
        """Fail everybody, also whose texts the worker has; it is told to forget them."""
        for request_id, job in self._in_flight.items():
            job.fail(error)
            if self._worker:
                self._worker.send(wire.Cancel(id=request_id))
        self._in_flight.clear()
        self.refuse_waiting(error)

    def abandon(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        with suppress(ValueError):
            self._waiting.remove(job)
        for request_id, other in list(self._in_flight.items()):
            if other is job:
                del self._in_flight[request_id]
                if self._worker:
                    self._worker.send(wire.Cancel(id=request_id))
        self._last_used_s = time.monotonic()
        self._wake.set()
        self._around.changed()

    # -- what others see --------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it has a worker, or somebody who waits for one."""
        return self._task is not None

    @property
    def busy(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._waiting or self._in_flight or self._load_wishes)

    @property
    def wanted(self) -> bool:
        """Whether a start still serves somebody."""
        return bool(self._waiting or self._load_wishes)

    @property
    def queued_texts(self) -> int:
        """Texts without a vector yet, waiting or in flight."""
        return sum(job.unanswered for job in (*self._waiting, *self._in_flight.values()))

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, while there is one."""
        return self._worker.pid if self._worker else None

    def memory_bytes(self) -> int:
        """Resident memory of the worker now; 0 without one."""
        if not self._worker:
            return 0
        now_bytes = memory_bytes(self._worker.pid)
        self._peak_bytes = max(self._peak_bytes, now_bytes)
        return now_bytes

    def as_resident(self) -> Resident:
        """Return what the eviction policy needs to know."""
        return Resident(
            self.spec.name,
            memory_bytes=max(self._peak_bytes, self.known_peak_bytes()),
            last_used_s=self._last_used_s,
            busy=self.busy or self.state == "starting",
            pinned=self.spec.pinned,
            leaving=self._leave_reason is not None,
        )

    def known_peak_bytes(self) -> int:
        """Return the peak memory that earlier runs measured, 0 when there was none."""
        entry = self._around.lock.read().get(self.spec.name)
        return entry.peak_memory_bytes if entry else 0

    def row(self) -> dict[str, Any]:
        """Return what `/models` says about it."""
        now_s = time.monotonic()
        entry = self._around.lock.read().get(self.spec.name)
        idle_s = None
        if self.state == "ready" and not self.busy:
            idle_s = round(now_s - self._last_used_s, 1)
        leaves_s = self._idle_unload_s - idle_s if idle_s is not None else math.inf
        fingerprint = None
        if self.ready:
            fingerprint = self.ready.fingerprints[str(self.spec.dimensions)]
        elif entry:
            fingerprint = entry.now.fingerprint
        pulled = find_here(self.spec, self._around.homes.hub, entry) is not None
        files = entry.now.files.values() if entry and pulled else ()
        return {
            "name": self.spec.name,
            "aliases": [*self.spec.aliases, *self.spec.hub_ids],
            "dimensions": self.spec.dimensions,
            "pooling": self.spec.pooling,
            "precision": self.spec.precision,
            "max_tokens": self.ready.max_tokens if self.ready else self.spec.max_tokens,
            "fingerprint": fingerprint,
            "state": self.state,
            "backend": self.ready.backend if self.ready else self.spec.backend,
            "compute": self.ready.compute if self.ready else self.spec.compute,
            "memory_bytes": self.memory_bytes(),
            "in_flight": len(self._in_flight),
            "queued": len(self._waiting),
            "idle_s": idle_s,
            "unloads_in_s": None if math.isinf(leaves_s) else max(0.0, round(leaves_s, 1)),
            "loads": self.loads,
            "last_load_s": self.last_load_s,
            "phases_s": self.phases_s,
            "progress": asdict(self.progress) if self.progress else None,
            "last_error": self.last_error.message if self.last_error else None,
            "notes": self.notes,
            "pulled": pulled,
            "files_bytes": sum(file.size for file in files),
            "files_changed_s": max((file.mtime_ns // 10**9 for file in files), default=0),
            "pid": self.worker_pid,
        }

    # -- the task ---------------------------------------------------------------------------

    def _poke(self) -> None:
        if not self._task:
            self._task = asyncio.create_task(self._live(), name=f"model {self.spec.name}")
        self._wake.set()

    def _refuse_while_backing_off(self) -> None:
        left_s = self._retry_at_s - time.monotonic()
        if self.state == "failed" and self.last_error and left_s > 0:
            hint = f"{self.last_error.hint or ''} It is not tried again for {math.ceil(left_s)} s."
            raise type(self.last_error)(self.last_error.message, hint=hint.strip())

    @property
    def _idle_unload_s(self) -> float:
        if self.spec.pinned:
            return math.inf
        return self.spec.idle_unload or self._around.idle_unload_s()

    async def _live(self) -> None:
        """From the first wish until the model is cold again with nobody waiting."""
        try:
            died = False
            while self.wanted:
                self._set_state("starting")
                if died:
                    await self._pause()
                died = False
                try:
                    await self._start()
                    await self._serve()
                except _WorkerDiedError as death:
                    died = True
                    assert self._worker  # it is what died
                    self._bury(death, await self._worker.death(DEAD_GRACE_S))
                except _NobodyWaitsError:
                    log.info("%s: its start was called off", self.spec.name)
                except EmberdError as error:
                    self._give_up(error)
                except Exception as error:  # noqa: BLE001 - a bug must not leave anybody waiting
                    what = f"emberd failed over {self.spec.name}: {type(error).__name__}."
                    self._give_up(EmberdError(what, hint="Report it with the server's log."))
                finally:
                    await self._end_worker()
                if self.state != "failed":
                    self._set_state("cold")
        finally:
            self._task = None
            self._around.changed()

    async def _pause(self) -> None:
        """Wait before a worker that died is started again, longer each time, from the second on."""
        if self._failures_in_a_row < 2:
            return
        until_s = time.monotonic() + min(0.1 * 2**self._failures_in_a_row, MAX_BACKOFF_S)
        while self.wanted and not self._leave_reason and time.monotonic() < until_s:
            await self._sleep(until_s - time.monotonic())

    def _set_state(self, state: State) -> None:
        if state != self.state:
            log.info("%s: %s", self.spec.name, state)
            self.state = state
        self._around.changed()

    async def _start(self) -> None:
        """Take room, spawn a worker, wait until it is ready."""
        if not await self._around.make_room(self):
            raise _NobodyWaitsError
        began_s = time.monotonic()
        entry = self._around.lock.read().get(self.spec.name)
        start = wire.Start(
            version=__version__,
            spec=asdict(self.spec),
            hub=str(self._around.homes.hub),
            cache=str(self._around.homes.cache),
            lock=asdict(entry) if entry else None,
            spawned_s=began_s,
        )
        try:
            self._worker = await WorkerProcess.spawn(start)
        except OSError as error:
            raise WorkerStartError(
                f"No process could be started for {self.spec.name}: {error.strerror}.",
                hint="Look at the limits on processes and memory of this user.",
            ) from None
        self._worker_died, self._start_error = False, None
        self._peak_bytes = 0
        reader = asyncio.create_task(self._read(self._worker))
        reader.add_done_callback(lambda _: self._wake.set())
        await self._watch_start(self._worker)
        assert self.ready  # _watch_start returns no earlier
        self._stood_still = False
        self.loads += 1
        self.last_load_s = round(time.monotonic() - began_s, 3)
        self._around.observer.loaded(self.spec.name, self.last_load_s, self.ready.phases_s)
        self.last_error = None
        self._last_used_s = time.monotonic()
        for wish in self._load_wishes:
            if not wish.done():
                wish.set_result(None)
        self._load_wishes.clear()

    async def _watch_start(self, worker: WorkerProcess) -> None:
        """Wait for Ready. What moves is alive: frames arrive or processor time is used."""
        pulse = _Pulse()
        while not self.ready:
            if self._worker_died:
                raise self._start_error or _WorkerDiedError(while_starting=True)
            if self._leave_reason and not self.wanted:
                raise _NobodyWaitsError
            if pulse.still_s(worker.pid, self.progress) > STALL_S:
                worker.kill()
                self._stood_still = not self._stood_still
                if self._stood_still:  # once may be the machine's fault, twice is not
                    log.error("%s: its start stands still; it is killed", self.spec.name)
                    raise _WorkerDiedError(while_starting=True)
                raise WorkerStartError(
                    f"{self.spec.name} did not get on with its start for {STALL_S:.0f} s, twice.",
                    hint="Look at the network and the disk, then ask again.",
                )
            await self._sleep(STALL_CHECK_S)

    async def _sleep(self, timeout_s: float | None) -> bool:
        """Wait to be woken; False when the time passed instead."""
        limit_s = timeout_s if timeout_s is not None and math.isfinite(timeout_s) else None
        try:
            async with asyncio.timeout(limit_s):  # unlike `wait_for`, no task for each request
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _read(self, worker: WorkerProcess) -> None:
        """Take the frames of one worker, until it is gone."""
        try:
            async with aclosing(worker.frames()) as frames:
                async for received in frames:
                    if worker is not self._worker:
                        return  # its last words are no word of its successor's
                    self._receive(received)
                    self._wake.set()
        except (KeyError, ValueError, IndexError) as error:
            log.error("%s: its worker answers nonsense: %s", self.spec.name, type(error).__name__)  # noqa: TRY400
        finally:
            if worker is self._worker:
                self._worker_died = True

    def _receive(self, received: wire.Received) -> None:
        frame = received.frame
        self._frames += 1
        if isinstance(frame, wire.Progress):
            self.progress = frame
        elif isinstance(frame, wire.Ready):
            self.ready, self.progress = frame, None
            self._answers, self._ready_at = 0, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.phases_s = dict(frame.phases_s)
            self._first_sent_s = time.monotonic() if self._waiting else None
        elif isinstance(frame, wire.StartFailed):
            self._start_error = from_code(frame.code, frame.message, frame.hint)
        elif isinstance(frame, wire.Batch):
            self._around.observer.ran(self.spec.name, frame)
        elif isinstance(frame, wire.Fragments):
            self._failures_in_a_row = 0
            if self._first_sent_s and self.phases_s is not None:
                self.phases_s["first vector"] = round(time.monotonic() - self._first_sent_s, 4)
                self._first_sent_s = None
            job = self._in_flight.get(frame.id)
            if job:
                job.receive(frame, received.payload)
                if not job.unanswered:
                    del self._in_flight[frame.id]
                    if time.monotonic() - self._last_used_s > MEMORY_SAMPLE_S:
                        self.memory_bytes()
                    self._last_used_s = time.monotonic()
                    self._answers += not job.wants_tokens
                    job.finish(self.spec.name)
        elif isinstance(frame, wire.Failure):
            self._failures_in_a_row = 0
            job = self._in_flight.pop(frame.id, None)
            if job:
                self._last_used_s = time.monotonic()
                job.fail(from_code(frame.code, frame.message, frame.hint))
        elif isinstance(frame, wire.Damaged):
            self._distrust(frame.what)

    def _distrust(self, what: str) -> None:
        """End the worker, have what it still has computed elsewhere, tell of what it answered."""
        if self._worker:
            self._worker.kill()
        self._worker_died = True
        for job in reversed(self._in_flight.values()):
            job.begin_again()
            self._waiting.appendleft(job)
        self._in_flight.clear()
        found = (
            f"{self.spec.name} computed with something damaged: {what}. It had answered"
            f" {self._answers} requests since {self._ready_at}."
        )
        self.last_error = EmberdError(found)
        log.error("%s", found)
        if self._answers:
            hint = "Embed again what was embedded then, and look at the disk."
            self.damage = {"code": VECTORS_DAMAGED, "message": found, "hint": hint}

    async def _serve(self) -> None:
        """Hand out jobs until it is time to leave. Raises `_WorkerDiedError`."""
        self._set_state("ready")
        self._dispatch()  # whoever waited for this start is served, even when it leaves at once
        self.memory_bytes()
        self._remember_start()
        assert self._worker  # since _start
        pulse = _Pulse()
        while True:
            if self._worker_died:
                raise _WorkerDiedError(while_starting=False)
            if self._retired_for or not self._leave_reason:
                self._dispatch()
            if self._leave_reason:
                self._set_state("draining")
                if not self._in_flight and not self._is_held_up:
                    break
            if self._in_flight or self._is_held_up:
                if pulse.still_s(self._worker.pid, self._frames) > HUNG_S:
                    log.error("%s: its worker hangs; it is killed", self.spec.name)
                    self._worker.kill()
                await self._sleep(UNREAD_CHECK_S if self._is_held_up else STALL_CHECK_S)
                continue
            pulse = _Pulse()
            self._around.changed()  # it could leave now, if another model needs the room
            idle_left_s = self._last_used_s + self._idle_unload_s - time.monotonic()
            if not await self._sleep(idle_left_s) and not self._waiting:
                self.leave("idle")
        log.info("%s: leaves (%s)", self.spec.name, self._leave_reason)

    def _dispatch(self) -> None:
        """Send what waits. While there are suspects of a crash, one of them alone.

        The worker describes tokens for one request at a time. The next is not sent before: who only
        stands in line is no suspect.
        """
        suspects = [job for job in self._waiting if job.strikes]
        if any(job.strikes for job in self._in_flight.values()):
            return
        if suspects:
            if not self._in_flight:
                self._waiting.remove(suspects[0])
                self._send(suspects[0])
            return
        describes = any(job.wants_tokens for job in self._in_flight.values())
        in_line: list[Job] = []
        while self._waiting and self._worker_takes_more:
            job = self._waiting.popleft()
            if job.wants_tokens and describes:
                in_line.append(job)
            else:
                describes = describes or job.wants_tokens
                self._send(job)
        self._waiting.extendleft(reversed(in_line))

    @property
    def _worker_takes_more(self) -> bool:
        return self._worker is not None and self._worker.takes_more

    @property
    def _is_held_up(self) -> bool:
        """Whether requests wait for the worker to read what it was sent before."""
        return bool(self._waiting) and not self._worker_takes_more

    def _send(self, job: Job) -> None:
        assert self._worker and self.ready  # only called while serving
        offered = self._space_of(job, self.ready)
        as_ever = offered in self.ready.fingerprints.values()
        equivalent = self.ready.equivalent if as_ever else ()
        if job.expected_fingerprint not in (None, offered, *equivalent):
            job.fail(
                FingerprintMismatchError(
                    f"{self.spec.name} gives vectors of space {offered} and the caller expects"
                    f" {(job.expected_fingerprint or '')[:64]!r}.",
                    hint="Re-embed what is stored, or ask for the model that made it.",
                )
            )
            return
        if not job.enter(offered):
            job.fail(
                SpaceChangingError(
                    f"{self.spec.name} became another vector space twice while it answered.",
                    hint="Its files are being replaced; ask again when that is done.",
                )
            )
            return
        self._next_id += 1
        try:
            self._worker.send(job.to_frame(self._next_id))
        except wire.FrameError:  # only who asks without the HTTP API gets so far
            most = format_size(wire.MAX_HEADER_BYTES)
            hint = "Send the texts in several requests."
            job.fail(TooLargeError(f"The texts are more than {most}.", hint=hint))
        else:
            self._in_flight[self._next_id] = job

    def _space_of(self, job: Job, ready: wire.Ready) -> str:
        """Return the fingerprint of what `job` gets; other than usual when its lengths are."""
        if job.normalize in (None, self.spec.normalize):
            return ready.fingerprints[str(job.dimensions)]
        now = LockEntry.from_dict(ready.lock).now
        return fingerprint(
            self.spec,
            files=now.files,
            options=replace(now.options, normalize=job.normalize),
            dimensions=job.dimensions,
        )

    async def _end_worker(self) -> None:
        """End the process, if there is one; afterwards its memory is back."""
        worker = self._worker
        if worker:
            self.memory_bytes()
            await worker.end(DEAD_GRACE_S if self._worker_died else END_GRACE_S)
            if self._remembering:
                await self._remembering
            if not self._retired_for:  # the lock's entry is that of its successor by now
                peak = partial(self._around.lock.note_peak, self.spec.name, self._peak_bytes)
                await self._remember(peak)
        if self.ready:
            reason = self._leave_reason or "crash"
            self._around.observer.unloaded(self.spec.name, reason)
        self._worker = None
        self.ready = self.progress = None
        self._leave_reason = self._retired_for
        self.has_room = False
        release_free_memory()  # the server's own share of it: answers, frames, pipes
        self._gone.set()
        self._gone = asyncio.Event()

    def _bury(self, death: "_WorkerDiedError", cause: str) -> None:
        """The worker died: those of its jobs that may be tried again wait for the next one."""
        self._failures_in_a_row += 1
        jobs = list(self._in_flight.values())
        self._in_flight.clear()
        strikes_before = sum(job.strikes for job in jobs)
        for job in reversed(jobs):
            if job.strike():
                self._waiting.appendleft(job)
            else:
                job.fail(
                    WorkerCrashedError(
                        f"The worker of {self.spec.name} died twice on this request.",
                        hint="Send its texts one by one to find the one that does it.",
                    )
                )
        struck = sum(job.strikes for job in jobs) - strikes_before
        log.warning(
            "%s: its worker died (%s) with %d requests, %d of them struck",
            self.spec.name, cause, len(jobs), struck,
        )  # fmt: skip
        if self._failures_in_a_row >= MAX_DEATHS_IN_A_ROW:
            when = "while starting" if death.while_starting else "before it answered anything"
            self._give_up(
                WorkerStartError(
                    f"The worker of {self.spec.name} died {self._failures_in_a_row} times"
                    f" in a row {when}, the last time of {cause}.",
                    hint="Look at the server's log and the free memory, then ask again.",
                )
            )

    def _give_up(self, error: EmberdError) -> None:
        """Fail everybody who waits; the next request after the backoff tries again."""
        log.error("%s: %s", self.spec.name, error.message)
        self._failures_in_a_row += 1
        self._retry_at_s = time.monotonic() + min(2.0**self._failures_in_a_row / 2, MAX_BACKOFF_S)
        self.last_error = error
        self.refuse_all(error)
        self._set_state("failed")

    def _remember_start(self) -> None:
        """Have written what this start taught, and say when the model is not what it was.

        Nobody waits for it: the lock of the file may be somebody else's for a while.
        """
        assert self.ready
        if self._retired_for:
            return
        entry = replace(LockEntry.from_dict(self.ready.lock), peak_memory_bytes=self._peak_bytes)
        if entry.changed_to:
            log.warning("%s", change_warning(self.spec.name, entry)["message"])
        self._tell_differences()
        put = partial(self._around.lock.put, self.spec.name, entry)
        self._remembering = asyncio.create_task(self._remember(put))

    def _tell_differences(self) -> None:
        """Say once what the model's folder has otherwise than what a user wrote of it."""
        assert self.ready
        found = [Difference(**difference) for difference in self.ready.differences]
        found = [each for each in found if not is_built_in(self.spec, each.key)]
        notes = [difference.told(self.spec.name) for difference in found]
        for note in notes:
            if note not in self.notes:
                log.warning("%s", note)
        self.notes = notes

    async def _remember(self, write: Callable[[], None]) -> None:
        """Write to the lock, off the event loop; a folder that cannot be written is no end."""
        try:
            await aside(write)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            log.warning("%s: lock.json cannot be written: %s", self.spec.name, reason)


def change_warning(name: str, entry: LockEntry) -> dict[str, str]:
    """Return the standing warning of a model whose vectors are not what they were."""
    return {
        "code": "space_changed",
        "message": f"{name} gives other vectors than it did: {entry.reasons}. Its space is"
        f" {entry.now.fingerprint} now, {entry.fingerprint} before.",
        "hint": entry.advice(name),
    }


class _Pulse:
    """Tells a worker that works from one that stands still."""

    def __init__(self) -> None:
        self._heard: object = None
        self._cpu_s = 0.0
        self._moved_s = self._looked_s = time.monotonic()

    def still_s(self, pid: int, heard: object) -> float:
        """Return for how long nothing new was `heard` of it and it used no processor time.

        Cheap enough for every frame: the system is asked once in a while.
        """
        now_s = time.monotonic()
        if heard != self._heard:
            self._heard, self._moved_s = heard, now_s
        elif now_s - self._looked_s > PULSE_S:
            cpu_s = round(cpu_seconds(pid), 1)
            if cpu_s != self._cpu_s:
                self._cpu_s, self._moved_s = cpu_s, now_s
            self._looked_s = now_s
        return now_s - self._moved_s


class _WorkerDiedError(Exception):
    """The worker's pipe closed."""

    def __init__(self, *, while_starting: bool) -> None:
        super().__init__()
        self.while_starting = while_starting


class _NobodyWaitsError(Exception):
    """A start was called off; nobody is told, because nobody waits."""
