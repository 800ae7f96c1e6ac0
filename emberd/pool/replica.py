"""One worker of a model: spawned, watched while it starts and while it serves, buried, ended.

A model has one of these for each worker that it should have; each can run one worker after the
other. What a death or a failure means for the model is the model's business (`Owner`).
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from emberd.errors import EmberdError, WorkerStartError
from emberd.pool.backlog import Backlog
from emberd.pool.context import PoolContext
from emberd.pool.lane import Lane
from emberd.pool.session import Session
from emberd.pool.states import Event
from emberd.pool.watchdog import Backoff, Watchdog
from emberd.registry.spec import ModelSpec
from emberd.worker import wire

log = logging.getLogger("emberd.pool")


class Owner(Protocol):
    """What a replica needs from its model."""

    spec: ModelSpec
    context: PoolContext
    backlog: Backlog
    leave_reason: str | None  # while its workers are to end
    retired_for: str | None  # if another model takes its name

    @property
    def idle_unload_s(self) -> float:
        """How long it may be idle before its workers are ended; infinity means forever."""

    def leave(self, reason: str) -> None:
        """Ask all its workers to end."""

    def start_of(self, replica: "Replica") -> wire.Start:
        """Return what the replica's next worker is told."""

    def take_in(self, replica: "Replica", ready: wire.Ready, seconds: float) -> Lane:
        """Have a worker that is ready take part. Raises EmberdError if it does not fit in."""

    def leaves(self) -> None:
        """A worker has noticed that it is to leave."""

    def lost(self, replica: "Replica", lane: Lane | None) -> tuple[int, int]:
        """A worker died: return how many requests it had, and how many may be the reason."""

    def gave_up(self, replica: "Replica", error: EmberdError) -> None:
        """A replica cannot be started, or must not serve."""

    def note_damage(self, message: str, *, answered: bool) -> None:
        """A worker computed with damaged data."""


@dataclass(slots=True)
class Place:
    """Which of a model's workers a replica is: its number, from 1, and the device it is told."""

    number: int
    device: str = ""


class Replica:
    """A worker while there is one. `ended` is how the last one did, and `note` what to know of it.

    `employed`: it takes up room, because it has a worker or is about to start one.
    """

    def __init__(self, owner: Owner, place: Place, backoff: Backoff) -> None:
        self.place = place
        self.backoff = backoff
        self.session: Session | None = None  # while there is a worker
        self.peak_bytes = 0  # of workers that have ended
        self.employed = False
        self.ended: Event = "called_off"
        self.note: str | None = None
        self.wake = asyncio.Event()
        self._owner = owner
        self._context = owner.context
        self._stalled = False  # its last start

    @property
    def name(self) -> str:
        """Its model's name, for the first; in the log."""
        name, number = self._owner.spec.name, self.place.number
        return name if number == 1 else f"{name} (replica {number})"

    @property
    def has_served(self) -> bool:
        """Whether its present worker takes or took part in answering."""
        return self.session is not None and self.session.lane is not None

    async def run(self) -> None:
        """Take one worker from its start to its end, and set `ended`."""
        self.ended = "died"
        try:
            self.ended = await self._start()
            if self.ended == "ready":
                self.ended = await self._serve()
            if self.ended == "died":
                await self._bury()
        except Exception as error:  # noqa: BLE001 - a bug must not leave anybody waiting
            self.ended = "gave_up"
            self._owner.gave_up(self, as_told(error, self.name))
        finally:
            self._stop_serving()
            await self._end_worker()

    def _stop_serving(self) -> None:
        """Close the lane of a worker that leaves, or that a bug has ended."""
        lane, backlog = self.session and self.session.lane, self._owner.backlog
        if lane in backlog.lanes:
            backlog.strike(lane)

    async def pause(self, goes_on: Callable[[], bool]) -> None:
        """Wait before replacing a worker that died: not the first time, then longer each time."""
        until_s = time.monotonic() + self.backoff.restart_delay_s
        while goes_on() and time.monotonic() < until_s:
            await self._sleep(until_s - time.monotonic())

    async def _start(self) -> Event:
        """Spawn a worker and wait until it is ready. Returns "ready", "called_off" or "died"."""
        began_s = time.monotonic()
        try:
            worker = await self._context.spawn(self._owner.start_of(self))
        except OSError as error:
            raise WorkerStartError(
                f"No process could be started for {self.name}: {error.strerror}.",
                hint="Check this user's limits on processes and memory.",
            ) from None
        self.session = Session(
            worker,
            self._owner.backlog,
            backoff=self.backoff,
            observer=self._context.observer,
            wake=self.wake,
            on_damage=self._owner.note_damage,
        )
        watched = await self._watch_start(self.session)
        if watched == "ready" and self.session.ready:
            seconds = round(time.monotonic() - began_s, 3)
            self.session.lane = self._owner.take_in(self, self.session.ready, seconds)
        return watched

    async def _watch_start(self, session: Session) -> Event:
        """Wait for Ready. A worker that reports progress or uses processor time is alive."""
        patience = self._context.patience
        watchdog = Watchdog(patience, time.monotonic())
        while session.died or not session.ready:
            if session.died and session.start_error:
                raise session.start_error
            if session.died:
                return "died"
            if self._owner.leave_reason and not self._is_needed:
                return "called_off"
            still_s = watchdog.still_s(
                time.monotonic(), session.progress, session.worker.cpu_seconds
            )
            if still_s > patience.stall_s:
                session.worker.kill()
                self._stalled = not self._stalled
                if self._stalled:  # once may be the machine's fault, twice is not
                    log.error("%s: its start makes no progress; killing it", self.name)
                    return "died"
                raise WorkerStartError(
                    f"{self.name} hung while starting for {patience.stall_s:.0f} s, twice.",
                    hint="Check the network and the disk, then try again.",
                )
            await self._sleep(patience.check_s)
        self._stalled = False
        return "ready"

    @property
    def _is_needed(self) -> bool:
        """Whether somebody waits for this worker, and no other can answer."""
        backlog = self._owner.backlog
        return backlog.wanted and not backlog.lanes

    async def _serve(self) -> Event:
        """Hand out jobs until it is time to leave. Returns "left" or "died"."""
        session, owner, backlog = self.session, self._owner, self._owner.backlog
        assert session and session.lane  # since _start
        patience, worker, lane = self._context.patience, session.worker, session.lane
        watchdog = Watchdog(patience, time.monotonic())
        while not session.died:
            leaving = owner.leave_reason is not None
            backlog.dispatch(lane, only_begun=leaving and not owner.retired_for)
            if leaving:
                owner.leaves()
            held_up = backlog.is_held_up(lane)
            if held_up or lane.parts:
                still_s = watchdog.still_s(time.monotonic(), session.frames, worker.cpu_seconds)
                if still_s > patience.hung_s:
                    log.error("%s: its worker hangs; killing it", self.name)
                    worker.kill()
                await self._sleep(patience.unread_check_s if held_up else patience.check_s)
                continue
            self._context.changed()  # it could leave now, if another model needs the room
            if leaving:
                log.info("%s: unloading (%s)", self.name, owner.leave_reason)
                return "left"
            watchdog = Watchdog(patience, time.monotonic())
            idle_left_s = backlog.last_used_s + owner.idle_unload_s - time.monotonic()
            if backlog.busy:  # other workers are
                await self._sleep(max(idle_left_s, patience.check_s))
            elif not await self._sleep(idle_left_s) and not backlog.busy:
                owner.leave("idle")
        return "died"

    async def _sleep(self, timeout_s: float) -> bool:
        """Wait to be woken; False if the time ran out first."""
        # Twice for each request, so without the task of `wait_for`, or what `timeout` does.
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        alarm = loop.call_at(until_s, self.wake.set) if math.isfinite(until_s) else None
        try:
            await self.wake.wait()
        finally:
            if alarm:
                alarm.cancel()
        self.wake.clear()
        return loop.time() < until_s

    async def _bury(self) -> None:
        """After the worker's death: queue again the jobs that may be tried again.

        Raises:
            WorkerStartError: it died too often in a row for there to be a next one.
        """
        assert self.session  # whose worker died
        too_often = self.backoff.died()
        requests, struck = self._owner.lost(self, self.session.lane)
        cause = await self.session.worker.death(self._context.patience.dead_grace_s)
        log.warning(
            "%s: its worker died (%s) with %d requests, %d of them struck",
            self.name, cause, requests, struck,
        )  # fmt: skip
        if too_often:
            when = "before it answered anything" if self.has_served else "while starting"
            raise WorkerStartError(
                f"The worker of {self.name} died {self.backoff.failures} times"
                f" in a row {when}, most recently of {cause}.",
                hint="Check the server's log and the free memory, then try again.",
            )

    async def _end_worker(self) -> None:
        """End the process, if there is one; afterwards its memory is back."""
        session, patience = self.session, self._context.patience
        if not session:
            return
        session.sample_memory()
        grace_s = patience.dead_grace_s if session.died else patience.end_grace_s
        if self.place.number > 1 and not session.lane:
            grace_s = 0.0  # it only loads, and has nothing to finish
        await session.worker.end(grace_s)
        self.peak_bytes = max(self.peak_bytes, session.peak_bytes)
        if session.lane:
            reason = self._owner.leave_reason or "crash"
            self._context.observer.unloaded(self._owner.spec.name, reason)
        self.session = None


def as_told(error: Exception, name: str) -> EmberdError:
    """Return an error that can be told to those who wait: a bug has no message for them."""
    if isinstance(error, EmberdError):
        return error
    return EmberdError(
        f"emberd failed while running {name}: {type(error).__name__}.",
        hint="Please report it, with the server's log.",
    )
