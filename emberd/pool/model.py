"""One model's life, as a state machine: `states.TRANSITIONS` is all that can happen to it.

One task owns the state. It exists while there is something to do: it starts a worker, hands it
jobs, restarts it when it dies, and ends it. Everybody else only leaves a request (`submit`, `load`,
`leave`) and wakes the task.
"""

import asyncio
import logging
import math
import time
from dataclasses import replace

from emberd.errors import EmberdError, WorkerStartError
from emberd.pool.backlog import Backlog
from emberd.pool.context import PoolContext
from emberd.pool.eviction import Resident
from emberd.pool.job import Job
from emberd.pool.memory import release_free_memory
from emberd.pool.process import start_frame
from emberd.pool.record import LastStart, LockRecord, differences
from emberd.pool.session import Session
from emberd.pool.states import TRANSITIONS, Event, State
from emberd.pool.status import vectors_damaged
from emberd.pool.watchdog import Backoff, Watchdog
from emberd.registry.spec import ModelSpec
from emberd.worker import wire

log = logging.getLogger("emberd.pool")


class Model:
    """A registry entry and, while it is loaded, its worker."""

    def __init__(self, spec: ModelSpec, context: PoolContext) -> None:
        self.spec = spec
        self.context = context
        self.state: State = "cold"
        self.backlog = Backlog(spec.name)
        self.session: Session | None = None  # while there is a worker
        self.record = LockRecord(spec.name, context.lock)
        self.loads = 0
        self.last_start = LastStart()
        self.last_error: EmberdError | None = None
        self.damage: dict[str, str] | None = None  # a standing warning of answers that may be wrong
        self._found_damage: str | None = None
        self._backoff = Backoff(context.patience)
        self._stalled = False  # its last start
        self._leave_reason: str | None = None
        self._retired_for: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._gone = asyncio.Event()  # replaced each time a worker has ended

    # -- requests, from anybody -------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; its `done` answers. Raises the last error while a failed start backs off."""
        self._refuse_while_backing_off()
        self.backlog.add(job)
        self._run_task()

    async def load(self) -> None:
        """Return when the model is ready, or raise the error that prevents it."""
        if self.state == "ready" and not self._leave_reason:
            return
        self._refuse_while_backing_off()
        load = self.backlog.add_load()
        self._run_task()
        try:
            await load
        finally:
            self.backlog.abandon_load(load)

    async def audited(self) -> str | None:
        """Wait until its worker, if there is one, has checked what it computes with, or is gone.

        Returns:
            The latest damage that any of its workers found; None if there was none.
        """
        if self.session:
            await self.session.audited.wait()
        return self._found_damage

    def leave(self, reason: str) -> None:
        """Ask the worker to end once it has answered what it was given."""
        if self._task:
            self._leave_reason = self._leave_reason or reason
            self._wake.set()

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
        self._retired_for = reason
        self.leave(reason)

    def adopt(self, spec: ModelSpec) -> None:
        """Take another entry that the same worker serves, and look at the limits again."""
        self.spec = spec
        self._wake.set()

    def refuse_waiting(self, error: EmberdError) -> None:
        """Fail everyone who waits for a worker; requests that a worker already has continue."""
        self.backlog.refuse_waiting(error)
        self._wake.set()

    def refuse_all(self, error: EmberdError) -> None:
        """Fail everyone, and have the worker forget what it has."""
        self.backlog.refuse_all(error, self.session.worker if self.session else None)
        self._wake.set()

    def abandon(self, job: Job) -> None:
        """Forget a job that nobody waits for any longer."""
        self.backlog.abandon(job, self.session.worker if self.session else None)
        self._wake.set()
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

    def as_resident(self) -> Resident:
        """Return what the eviction policy needs to know."""
        peak_bytes = self.session.peak_bytes if self.session else 0
        return Resident(
            self.spec.name,
            memory_bytes=max(peak_bytes, self.record.peak_bytes()),
            last_used_s=self.backlog.last_used_s,
            busy=self.backlog.busy or self.state == "starting",
            pinned=self.spec.pinned,
            leaving=self._leave_reason is not None,
        )

    # -- the task ---------------------------------------------------------------------------

    def _run_task(self) -> None:
        if not self._task:
            self._task = asyncio.create_task(self._live(), name=f"model {self.spec.name}")
        self._wake.set()

    def _refuse_while_backing_off(self) -> None:
        left_s = self._backoff.left_s(time.monotonic())
        if self.state == "failed" and self.last_error and left_s > 0:
            hint = f"{self.last_error.hint or ''} Next attempt in {math.ceil(left_s)} s."
            raise type(self.last_error)(self.last_error.message, hint=hint.strip())

    @property
    def idle_unload_s(self) -> float:
        """How long it may be idle before its worker is ended; infinity means forever."""
        if self.spec.pinned:
            return math.inf
        return self.spec.idle_unload or self.context.idle_unload_s()

    def _happened(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        log.info("%s: %s", self.spec.name, self.state)
        self.context.changed()

    async def _live(self) -> None:
        """From the first request until the model is cold again with nobody waiting."""
        try:
            ended: Event = "left"
            while self.backlog.wanted:
                self._happened("wanted")
                if ended == "died":
                    await self._pause()
                ended = await self._run_worker()
        finally:
            self._task = None
            self.context.changed()

    async def _pause(self) -> None:
        """Wait before replacing a worker that died: not the first time, then longer each time."""
        until_s = time.monotonic() + self._backoff.restart_delay_s
        while self.wanted and not self._leave_reason and time.monotonic() < until_s:
            await self._sleep(until_s - time.monotonic())

    async def _run_worker(self) -> Event:
        """Take one worker from its start to its end; return how it ended."""
        ended: Event = "called_off"
        try:
            if await self.context.room.take(self):
                ended = await self._start()
            if ended == "ready":
                ended = await self._serve()
            if ended == "died":
                await self._bury()
        except EmberdError as error:
            ended = self._give_up(error)
        except Exception as error:  # noqa: BLE001 - a bug must not leave anybody waiting
            what = f"emberd failed while running {self.spec.name}: {type(error).__name__}."
            ended = self._give_up(
                EmberdError(what, hint="Please report it, with the server's log.")
            )
        finally:
            await self._end_worker()
        if ended != "gave_up":  # which is known before the worker has ended
            self._happened(ended)
        return ended

    async def _start(self) -> Event:
        """Spawn a worker and wait until it is ready. Returns "ready", "called_off" or "died"."""
        began_s = time.monotonic()
        try:
            worker = await self.context.spawn(
                start_frame(self.spec, self.context.homes, self.record.read())
            )
        except OSError as error:
            raise WorkerStartError(
                f"No process could be started for {self.spec.name}: {error.strerror}.",
                hint="Check this user's limits on processes and memory.",
            ) from None
        self.session = Session(
            worker,
            self.backlog,
            backoff=self._backoff,
            observer=self.context.observer,
            wake=self._wake,
            on_damage=self._note_damage,
        )
        watched = await self._watch_start(self.session)
        if watched == "ready":
            self.loads += 1
            seconds = round(time.monotonic() - began_s, 3)
            phases_s = self.session.phases_s
            self.last_start = replace(self.last_start, seconds=seconds, phases_s=phases_s)
            self.context.observer.loaded(self.spec.name, seconds, phases_s)
        return watched

    async def _watch_start(self, session: Session) -> Event:
        """Wait for Ready. A worker that reports progress or uses processor time is alive."""
        patience = self.context.patience
        watchdog = Watchdog(patience, time.monotonic())
        while not session.ready:
            if session.died and session.start_error:
                raise session.start_error
            if session.died:
                return "died"
            if self._leave_reason and not self.wanted:
                return "called_off"
            still_s = watchdog.still_s(
                time.monotonic(), session.progress, session.worker.cpu_seconds
            )
            if still_s > patience.stall_s:
                session.worker.kill()
                self._stalled = not self._stalled
                if self._stalled:  # once may be the machine's fault, twice is not
                    log.error("%s: its start makes no progress; killing it", self.spec.name)
                    return "died"
                raise WorkerStartError(
                    f"{self.spec.name} hung while starting for {patience.stall_s:.0f} s, twice.",
                    hint="Check the network and the disk, then try again.",
                )
            await self._sleep(patience.check_s)
        self._stalled = False
        return "ready"

    async def _serve(self) -> Event:
        """Hand out jobs until it is time to leave. Returns "left" or "died"."""
        session, backlog = self.session, self.backlog
        assert session and session.ready  # since _start
        patience, worker, ready = self.context.patience, session.worker, session.ready
        self.last_error = None
        backlog.last_used_s = time.monotonic()
        self._happened("ready")
        backlog.answer_loads()
        backlog.dispatch(worker, ready, self.spec)  # also when it is to leave at once
        session.sample_memory()
        self._learn(session, ready)
        watchdog = Watchdog(patience, time.monotonic())
        while not session.died:
            if self._retired_for or not self._leave_reason:
                backlog.dispatch(worker, ready, self.spec)
            if self._leave_reason and self.state == "ready":
                self._happened("leave")
            held_up = backlog.is_held_up(worker)
            if held_up or backlog.in_flight:
                still_s = watchdog.still_s(time.monotonic(), session.frames, worker.cpu_seconds)
                if still_s > patience.hung_s:
                    log.error("%s: its worker hangs; killing it", self.spec.name)
                    worker.kill()
                await self._sleep(patience.unread_check_s if held_up else patience.check_s)
                continue
            self.context.changed()  # it could leave now, if another model needs the room
            if self._leave_reason:
                log.info("%s: unloading (%s)", self.spec.name, self._leave_reason)
                return "left"
            watchdog = Watchdog(patience, time.monotonic())
            idle_left_s = backlog.last_used_s + self.idle_unload_s - time.monotonic()
            if not await self._sleep(idle_left_s) and not backlog.waiting:
                self.leave("idle")
        return "died"

    async def _sleep(self, timeout_s: float) -> bool:
        """Wait to be woken; False if the time ran out first."""
        try:
            # unlike `wait_for`, no task for each request
            async with asyncio.timeout(timeout_s if math.isfinite(timeout_s) else None):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _bury(self) -> None:
        """After the worker's death: queue again the jobs that may be tried again.

        Raises:
            WorkerStartError: it died too often in a row for there to be a next one.
        """
        assert self.session  # whose worker died
        too_often = self._backoff.died()
        requests, struck = self.backlog.strike()
        cause = await self.session.worker.death(self.context.patience.dead_grace_s)
        log.warning(
            "%s: its worker died (%s) with %d requests, %d of them struck",
            self.spec.name, cause, requests, struck,
        )  # fmt: skip
        if too_often:
            when = "while starting" if self.state == "starting" else "before it answered anything"
            raise WorkerStartError(
                f"The worker of {self.spec.name} died {self._backoff.failures} times"
                f" in a row {when}, most recently of {cause}.",
                hint="Check the server's log and the free memory, then try again.",
            )

    def _give_up(self, error: EmberdError) -> Event:
        """Fail everybody who is waiting; the next request after the backoff tries again."""
        log.error("%s: %s", self.spec.name, error.message)
        self._backoff.gave_up(time.monotonic())
        self.last_error = error
        self.refuse_all(error)
        self._happened("gave_up")
        return "gave_up"

    async def _end_worker(self) -> None:
        """End the process, if there is one; afterwards its memory is back."""
        session, patience = self.session, self.context.patience
        if session:
            session.sample_memory()
            await session.worker.end(
                patience.dead_grace_s if session.died else patience.end_grace_s
            )
            await self.record.written()
            if not self._retired_for:  # by now, the lock's entry is its successor's
                await self.record.note_peak(session.peak_bytes)
            if session.ready:
                reason = self._leave_reason or "crash"
                self.context.observer.unloaded(self.spec.name, reason)
        self.session = None
        self._leave_reason = self._retired_for
        self.context.room.give_back(self)
        release_free_memory()  # the server's own share of it: answers, frames, pipes
        self._gone.set()
        self._gone = asyncio.Event()

    def _learn(self, session: Session, ready: wire.Ready) -> None:
        """Keep what a start revealed."""
        if self._retired_for:
            return
        notes = differences(self.spec, ready)
        for note in notes:
            if note not in self.last_start.notes:
                log.warning("%s", note)
        self.last_start = replace(self.last_start, notes=notes)
        self.record.put(ready, session.peak_bytes)

    def _note_damage(self, message: str, *, answered: bool) -> None:
        self.last_error = EmberdError(message)
        self._found_damage = message
        if answered:
            self.damage = vectors_damaged(message)
