"""A model's replicas: how many there should be, and which of them run.

The first one starts alone. Once it is ready it has said which devices there are, and the others
start beside it; each is replaced when it dies, as long as one of them serves.
"""

import asyncio
import logging

from emberd.errors import WorkerStartError
from emberd.pool.replica import Owner, Place, Replica
from emberd.pool.session import Session
from emberd.pool.states import Event
from emberd.pool.watchdog import Backoff
from emberd.registry.spec import ModelSpec
from emberd.worker import wire

log = logging.getLogger("emberd.pool")


class Crew:
    """The replicas of one model. `first` is always there; `backoff` is that of the model."""

    def __init__(self, owner: Owner, backoff: Backoff) -> None:
        self._owner = owner
        self._backlog = owner.backlog
        self._room = owner.context.room
        self.first = Replica(owner, Place(1), backoff)
        self._replicas = [self.first]
        self._running: asyncio.TaskGroup | None = None

    @property
    def sessions(self) -> list[Session]:
        """The workers, also those that are starting or ending."""
        return [replica.session for replica in self._replicas if replica.session]

    @property
    def notes(self) -> list[str]:
        """Why replicas do not run."""
        return [replica.note for replica in self._replicas if replica.note]

    @property
    def employed(self) -> int:
        """How many run, or are about to."""
        return sum(replica.employed for replica in self._replicas)

    @property
    def planned(self) -> int:
        """How many there are to be, as far as is known."""
        return len(self._replicas)

    @property
    def peak_bytes(self) -> int:
        """The most memory that one of its workers has taken since the load began."""
        ended = (replica.peak_bytes for replica in self._replicas)
        return max(*ended, *(session.peak_bytes for session in self.sessions), 0)

    def beside(self, replica: Replica) -> list[Replica]:
        """Return the others that run, or are about to."""
        return [other for other in self._replicas if other.employed and other is not replica]

    def wake(self) -> None:
        """Have each look at what has changed."""
        for replica in self._replicas:
            replica.wake.set()

    async def run(self) -> Event:
        """Start the first replica; return how it ended, when no worker is left."""
        async with asyncio.TaskGroup() as self._running:
            self.first.employed, self.first.note = True, None
            self._running.create_task(self._employ(self.first, alone=True))
        return self.first.ended

    def plan(self, ready: wire.Ready) -> None:
        """Decide how many there are to be, when one says what there is."""
        if len(self._replicas) == 1:
            for number, device in enumerate(devices_for(self._owner.spec, ready)[1:], start=2):
                place = Place(number, device)
                backoff = Backoff(self._owner.context.patience)
                self._replicas.append(Replica(self._owner, place, backoff))
        self._backlog.workers = len(self._replicas)

    def hire(self, each_bytes: int) -> None:
        """Start those that do not run, if there is room for them, and one is ready."""
        for replica in self._replicas:
            if replica.employed or replica.ended == "gave_up" or not self._has_work:
                continue
            if self._room.free_bytes < each_bytes:
                note = f"{replica.name} does not run: there is no room for it."
                if note != replica.note:
                    log.warning("%s Raise limits.memory_budget.", note)
                replica.note = note
                continue
            assert self._running  # since `run`
            replica.employed, replica.note = True, None
            self._running.create_task(self._employ(replica), name=replica.name)
        self._backlog.workers = self.employed

    def dismiss(self) -> None:
        """Begin anew with the next load: there may be other devices then."""
        del self._replicas[1:]
        self.first.peak_bytes = 0

    async def _employ(self, replica: Replica, *, alone: bool = False) -> None:
        """Run a replica, again and again as long as others serve; `alone`: once in any case."""
        if alone:
            await replica.run()
        while self._has_work and replica.ended in ("called_off", "died"):
            if replica.ended == "died":
                await replica.pause(lambda: self._has_work)
            if self._has_work:
                await replica.run()
        replica.employed = False
        self._backlog.workers = self.employed
        self._owner.context.freed()

    @property
    def _has_work(self) -> bool:
        """Whether one of them serves, and is to go on."""
        return bool(self._backlog.lanes) and not self._owner.leave_reason


def devices_for(spec: ModelSpec, ready: wire.Ready) -> list[str]:
    """Return the device of each worker that a model should have, as its first one reports."""
    if not ready.devices:
        return [""]
    count = spec.workers(len(ready.devices))
    return [ready.devices[index % len(ready.devices)] for index in range(count)]


def unheeded(spec: ModelSpec, ready: wire.Ready) -> list[str]:
    """Say where a model cannot have as many replicas as somebody wants."""
    wanted = spec.replicas
    if not isinstance(wanted, int) or ready.devices or ready.streams >= wanted:
        return []
    runs = "one batch" if ready.streams == 1 else f"{ready.streams} batches"
    return [f"{spec.name}: `replicas` is {wanted}, but {ready.backend} runs {runs} at once here."]


def check_same(ready: wire.Ready, beside: wire.Ready) -> None:
    """Raise WorkerStartError if two workers of a model would not give the same vectors."""
    if ready.fingerprints == beside.fingerprints and ready.compute == beside.compute:
        return
    now, before = (
        f"{next(iter(each.fingerprints.values()))} in {each.compute}" for each in (ready, beside)
    )
    raise WorkerStartError(
        f"its vectors are of space {now}, but the workers that serve give {before}.",
        hint="If the model's files changed, unload it: the next request starts all workers anew.",
    )
