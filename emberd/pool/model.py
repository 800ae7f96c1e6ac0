"""One model's life, as a state machine: `states.TRANSITIONS` is all that can happen to it.

One task owns the state. It exists while there is something to do: it takes room, starts a worker
(`replica.py`), and starts again when that died and somebody waits. Everybody else only leaves a
request (`submit`, `load`, `leave`) and wakes the task.

Where one worker for each device is worth it, the first one says so when it is ready; it serves, and
others are started beside it. The model is ready as long as one of them is. A death is then that
replica's affair: it is replaced while others serve.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

from emberd.errors import EmberdError
from emberd.pool.backlog import Backlog
from emberd.pool.context import PoolContext
from emberd.pool.crew import Crew, check_same, unheeded
from emberd.pool.eviction import Resident
from emberd.pool.job import Job
from emberd.pool.lane import Lane
from emberd.pool.memory import release_free_memory
from emberd.pool.process import start_frame
from emberd.pool.record import LastStart, LockRecord, differences
from emberd.pool.replica import Replica, as_told
from emberd.pool.session import Session
from emberd.pool.states import TRANSITIONS, Event, State
from emberd.pool.status import vectors_damaged
from emberd.pool.watchdog import Backoff
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry
from emberd.worker import wire

EMPTIED: Mapping[State, Event] = {"starting": "called_off", "ready": "died", "draining": "left"}
"""How a load ends when its last worker is gone, unless the first one died."""

log = logging.getLogger("emberd.pool")


class Model:
    """A registry entry and, while it is loaded, its workers."""

    def __init__(self, spec: ModelSpec, context: PoolContext) -> None:
        self.spec = spec
        self.context = context
        self.state: State = "cold"
        self.backlog = Backlog(spec.name)
        self.record = LockRecord(spec.name, context.lock)
        self.loads = 0
        self.last_start = LastStart()
        self.last_error: EmberdError | None = None
        self.damage: dict[str, str] | None = None  # a standing warning of answers that may be wrong
        self.leave_reason: str | None = None
        self.retired_for: str | None = None
        self.fingerprints: Mapping[str, str] = {}  # of what it gives since the last load, by size
        self.steps: Mapping[str, float] = {}  # of its int8, by size; see `pool.steps`
        self.measuring = asyncio.Lock()
        self._found_damage: str | None = None
        self._backoff = Backoff(context.patience)
        self._crew = Crew(self, self._backoff)
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()  # replaced each time the last worker has ended

    # -- requests, from anybody -------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; its `done` answers. Raises the last error while a failed start backs off."""
        self._refuse_while_backing_off()
        self.backlog.add(job)
        if self.state == "ready" and not self.leave_reason:
            self.backlog.dispatch()
        if self.backlog.waiting or not self._task:
            self._run_task()

    async def load(self) -> None:
        """Return when the model is ready, or raise the error that prevents it."""
        if self.state == "ready" and not self.leave_reason:
            return
        self._refuse_while_backing_off()
        load = self.backlog.add_load()
        self._run_task()
        try:
            await load
        finally:
            self.backlog.abandon_load(load)

    async def audited(self) -> str | None:
        """Wait until each of its workers has checked what it computes with, or is gone.

        Returns:
            The latest damage that any of its workers found; None if there was none.
        """
        for session in self.sessions:
            await session.audited.wait()
        return self._found_damage

    def leave(self, reason: str) -> None:
        """Ask the workers to end once they have answered what they were given."""
        if self._task:
            self.leave_reason = self.leave_reason or reason
            self._crew.wake()

    async def unload(self, reason: str) -> bool:
        """Make it leave, and return when its memory is back; False if it was not loaded."""
        if not self._task:
            return False
        gone = self._gone
        self.leave(reason)
        await gone.wait()
        return True

    def retire(self, reason: str) -> None:
        """Answer everyone who is waiting, then leave for good: another model takes its name."""
        self.retired_for = reason
        self.leave(reason)

    def pin(self, pinned: bool) -> None:
        """Stay loaded, or no longer, until the server ends; whatever the entry says."""
        self.context.pins[self.spec.name] = pinned
        self._crew.wake()
        self.context.changed()
        self.context.observer.changed(self.spec.name)

    def adopt(self, spec: ModelSpec) -> None:
        """Take another entry that the same worker serves, and look at the limits again."""
        self.spec = spec
        self._crew.wake()

    def grow(self) -> None:
        """Start workers for which there was no room before, if there is now."""
        if self.state == "ready":
            self._crew.hire(self._worker_bytes)

    def refuse_waiting(self, error: EmberdError) -> None:
        """Fail everyone who waits for a worker; requests that a worker already has continue."""
        self.backlog.refuse_waiting(error)
        self._crew.wake()

    def refuse_all(self, error: EmberdError) -> None:
        """Fail everyone, and have the workers forget what they have."""
        self.backlog.refuse_all(error)
        self._crew.wake()

    def abandon(self, job: Job) -> None:
        """Forget a job that nobody waits for any longer."""
        self.backlog.abandon(job)
        self._crew.wake()
        self.context.changed()

    # -- what others see --------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it has a worker, or somebody is waiting for one."""
        return self._task is not None

    @property
    def wanted(self) -> bool:
        """Whether somebody is waiting for it to start."""
        return self.backlog.wanted

    @property
    def sessions(self) -> list[Session]:
        """Its workers, also those that are starting or ending."""
        return self._crew.sessions

    @property
    def memory_bytes(self) -> int:
        """What its workers take now, read from the system."""
        return sum(session.sample_memory() for session in self.sessions)

    @property
    def notes(self) -> list[str]:
        """What to know of its last start: of the model's folder, and of missing replicas."""
        return [*self.last_start.notes, *self._crew.notes]

    def as_resident(self) -> Resident:
        """Return what the eviction policy needs to know."""
        return Resident(
            self.spec.name,
            memory_bytes=max(self._crew.employed, 1) * self._worker_bytes,
            last_used_s=self.backlog.last_used_s,
            busy=self.backlog.busy or self.state == "starting",
            pinned=self.pinned,
            leaving=self.leave_reason is not None,
        )

    @property
    def pinned(self) -> bool:
        """Whether it stays loaded: neither idle time nor another model ends its workers."""
        return self.context.pins.get(self.spec.name, self.spec.pinned)

    @property
    def idle_unload_s(self) -> float:
        """How long it may be idle before its workers are ended; infinity means forever."""
        if self.pinned:
            return math.inf
        return self.spec.idle_unload or self.context.idle_unload_s()

    @property
    def _worker_bytes(self) -> int:
        """The memory that each of its workers may take."""
        return max(self.record.peak_bytes(), self._crew.peak_bytes)

    # -- the task ---------------------------------------------------------------------------

    def _run_task(self) -> None:
        if not self._task:
            self._task = asyncio.create_task(self._live(), name=f"model {self.spec.name}")
        self._crew.wake()

    @property
    def rests_s(self) -> float:
        """How long requests are still refused after a failure; 0 if they are not."""
        return self._backoff.left_s(time.monotonic()) if self.state == "failed" else 0.0

    def _refuse_while_backing_off(self) -> None:
        left_s = self.rests_s
        if self.last_error and left_s > 0:
            hint = f"{self.last_error.hint or ''} Next attempt in {math.ceil(left_s)} s."
            raise type(self.last_error)(self.last_error.message, hint=hint.strip())

    def _happened(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        log.info("%s: %s", self.spec.name, self.state)
        self.context.changed()
        self.context.observer.changed(self.spec.name)

    async def _live(self) -> None:
        """From the first request until the model is cold again with nobody waiting."""
        try:
            ended: Event = "left"
            while self.backlog.wanted:
                self._happened("wanted")
                if ended == "died":
                    await self._crew.first.pause(lambda: self.wanted and not self.leave_reason)
                ended = await self._load()
        finally:
            self._task = None
            self.context.freed()

    async def _load(self) -> Event:
        """From taking room until the last worker has ended; return how that came about."""
        ended: Event = "called_off"
        try:
            if await self.context.room.take(self):
                ended = await self._crew.run()
        except Exception as error:  # noqa: BLE001 - a bug must not leave anybody waiting
            self._give_up(as_told(error, self.spec.name))
        finally:
            await self._end_load()
        if self.state == "failed":  # which is known before the worker has ended
            return "gave_up"
        if ended != "died":  # otherwise the state tells
            ended = EMPTIED[self.state]
        self._happened(ended)
        return ended

    async def _end_load(self) -> None:
        """Tidy up when there is no worker any more."""
        await self.record.written()
        if self._crew.peak_bytes and not self.retired_for:  # then it is its successor's
            await self.record.note_peak(self._crew.peak_bytes)
        self._crew.dismiss()
        self.leave_reason = self.retired_for
        self.context.room.give_back(self)
        release_free_memory()  # the server's own share of it: answers, frames, pipes
        self._gone.set()
        self._gone = asyncio.Event()

    def _give_up(self, error: EmberdError) -> None:
        """Fail everybody who is waiting; the next request after the backoff tries again."""
        log.error("%s: %s", self.spec.name, error.message)
        self._backoff.gave_up(time.monotonic())
        self.last_error = error
        self.refuse_all(error)
        self._happened("gave_up")

    # -- what its replicas ask and tell; see `replica.Owner` --------------------------------

    def start_of(self, replica: Replica) -> wire.Start:
        """Return what the replica's next worker is told.

        One that starts beside others shall become what they are.
        """
        entry = self.record.read()
        spec, lock = self.spec, asdict(entry) if entry else None
        if self.backlog.lanes:
            beside = self.backlog.lanes[0].ready
            spec, lock = replace(spec, backend=beside.backend), beside.lock
        device, workers = replica.place.device, self._crew.planned
        return start_frame(
            spec,
            self.context.homes,
            lock,
            device=device,
            workers=workers,
            threads=self.context.threads(),
            vectors_bytes=self.context.vectors_bytes,
        )

    def take_in(self, replica: Replica, ready: wire.Ready, seconds: float) -> Lane:
        """Have a worker that is ready take part; `seconds` is how long its start took.

        Raises:
            WorkerStartError: it is not what the others are.
        """
        session = replica.session
        assert session  # which has become ready
        for other in self.backlog.lanes:
            check_same(ready, other.ready)
        self.loads += 1
        self.context.observer.loaded(self.spec.name, seconds, session.phases_s)
        lane = self.backlog.open(session.worker, ready, self.spec, replica.wake.set)
        if self.state == "starting":
            phases_s = session.phases_s
            self.last_start = replace(self.last_start, seconds=seconds, phases_s=phases_s)
            self.last_error = None
            self.backlog.last_used_s = time.monotonic()
            self._happened("ready")
            self.backlog.answer_loads()
            self._crew.plan(ready)
            self.backlog.dispatch(lane)  # also when it is to leave at once
            session.sample_memory()
            self._learn(session, ready)
            self._crew.hire(self._worker_bytes)
            self.context.freed()  # what it left, to others
        return lane

    def _learn(self, session: Session, ready: wire.Ready) -> None:
        """Keep what a start revealed."""
        self.fingerprints = ready.fingerprints
        self.steps = LockEntry.from_dict(ready.lock).now.steps
        if self.retired_for:
            return
        notes = [*differences(self.spec, ready), *unheeded(self.spec, ready)]
        for note in notes:
            if note not in self.last_start.notes:
                log.warning("%s", note)
        self.last_start = replace(self.last_start, notes=notes)
        self.record.put(ready, session.peak_bytes)

    def leaves(self) -> None:
        """A worker has noticed that it is to leave."""
        if self.state == "ready":
            self._happened("leave")

    def lost(self, replica: Replica, lane: Lane | None) -> tuple[int, int]:
        """A worker died: return how many requests it had, and how many may be the reason."""
        if lane is None:
            return 0, 0
        found = self.backlog.strike(lane)
        others = self._crew.beside(replica)
        if others and not self.backlog.lanes and self.state in ("ready", "draining"):
            self._happened("died")
            self._happened("wanted")  # they are starting
        for other in others:
            other.wake.set()
        return found

    def gave_up(self, replica: Replica, error: EmberdError) -> None:
        """A replica cannot be started, or must not serve: alone, that is the model's failure."""
        was_extra = self.state == "draining" and not replica.has_served
        if self._crew.beside(replica) or was_extra:
            replica.note = f"{replica.name} does not run: {error.message}"
            log.error("%s", replica.note)
        else:
            self._give_up(error)

    def note_damage(self, message: str, *, answered: bool) -> None:
        """A worker computed with damaged data."""
        self.last_error = EmberdError(message)
        self._found_damage = message
        if answered:
            self.damage = vectors_damaged(message)
