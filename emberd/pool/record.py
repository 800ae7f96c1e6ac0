"""What a start reveals about a model: what `lock.json` keeps, and where the folder differs.

The lock is read when it is needed, and written in the background.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from emberd.aside import aside
from emberd.config.load import is_built_in
from emberd.pool.status import space_changed
from emberd.registry.difference import Difference
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.worker import wire

log = logging.getLogger("emberd.pool")


@dataclass(frozen=True, slots=True)
class LastStart:
    """The last start that worked; `notes` say where the model's folder differs from its entry.

    `phases_s` gets the time of the first vector added, when a request waited for the start.
    """

    seconds: float | None = None
    phases_s: dict[str, float] | None = None
    notes: list[str] = field(default_factory=list)


class LockRecord:
    """One model's entry. A write that fails is logged: the model works without it."""

    def __init__(self, name: str, lock: LockFile) -> None:
        self._name = name
        self._lock = lock
        self._writing: asyncio.Task[None] | None = None

    def read(self) -> LockEntry | None:
        """Return the entry as it is now; the file is read again only when it has changed."""
        return self._lock.read().get(self._name)

    def peak_bytes(self) -> int:
        """Return the peak memory measured in earlier runs, 0 if there were none."""
        entry = self.read()
        return entry.peak_memory_bytes if entry else 0

    def put(self, ready: wire.Ready, peak_bytes: int) -> None:
        """Begin to write the entry that a worker made; the file may be locked for a while."""
        entry = replace(LockEntry.from_dict(ready.lock), peak_memory_bytes=peak_bytes)
        if entry.changed_to:
            log.warning("%s", space_changed(self._name, entry)["message"])
        write = partial(self._lock.put, self._name, entry)
        self._writing = asyncio.create_task(self._write(write))

    async def written(self) -> None:
        """Return once the last `put` has finished."""
        if self._writing:
            await self._writing

    async def note_peak(self, peak_bytes: int) -> None:
        """Write the peak memory of a worker that has ended."""
        await self._write(partial(self._lock.note_peak, self._name, peak_bytes))

    async def _write(self, write: Callable[[], None]) -> None:
        try:
            await aside(write)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            log.warning("%s: lock.json cannot be written: %s", self._name, reason)


def differences(spec: ModelSpec, ready: wire.Ready) -> list[str]:
    """Say where the model's folder differs from what a user wrote about it."""
    found = (Difference(**difference) for difference in ready.differences)
    return [each.told(spec.name) for each in found if not is_built_in(spec, each.key)]
