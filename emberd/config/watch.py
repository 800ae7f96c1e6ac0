"""Notice that a file may have changed, however an editor replaces it.

Folders are watched: the file's own, and that of every symlink on the way to it, so that a rename
over the file, a swapped link and a folder created later are all noticed.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from emberd.aside import aside
from emberd.files import is_folder

STEP_MS = 100  # after this long without events a change is complete: no half-written file is read
DEBOUNCE_MS = 1000  # unless the folder never falls quiet
LOOK_MS = 5000  # look this often without any event: network file systems send none
MAX_LINKS = 40  # as Linux allows on the way to a file
QUIET_S = 0.5  # a file that may be half-written is read once it has been unchanged for this long
EMPTY_S = 1.0  # the same for an empty file, since writing begins with one
SIZE = 2  # its place in a status, after device and inode

log = logging.getLogger("emberd.config")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file's identity, size and time; two equal snapshots are the same file, unchanged.

    `folders` are those in which a change may replace the file. `status` is None without a file.
    """

    folders: frozenset[Path]
    status: tuple[int, int, int, int] | None

    @classmethod
    def of(cls, file: Path) -> Self:
        """Take a snapshot of `file`, an absolute path that need not exist."""
        try:
            seen = file.stat()
        except (OSError, ValueError):
            return cls(_folders(file), None)
        status = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_ctime_ns)
        return cls(_folders(file), status)

    def patience_s(self, before: "Snapshot") -> float:
        """Return how long the file must stay unchanged before it is read, in seconds.

        A file that is written in place is empty or half-written at times, and half a file may well
        be valid; or an editor has moved it away for a moment. `before` is from the last read.
        """
        if self.status == before.status:
            return 0.0
        if self.status is None:
            return QUIET_S
        if self.status[SIZE] == 0:
            return EMPTY_S
        if before.status is None:
            return 0.0
        in_place = self.status[:SIZE] == before.status[:SIZE]
        return QUIET_S if in_place or self.status[SIZE] < before.status[SIZE] else 0.0


async def changes(file: Path, seen: Snapshot) -> AsyncGenerator[None, None]:
    """Yield whenever `file` may have changed since `seen`, until closed."""
    while True:
        folders = seen.folders
        async with aclosing(_events(folders)) as events:
            async for _ in events:
                now = await aside(partial(Snapshot.of, file))
                if now != seen:
                    seen = now
                    yield
                if seen.folders != folders:
                    break


async def _events(folders: frozenset[Path]) -> AsyncGenerator[object, None]:
    """Yield when something changed directly in one of the folders, and every now and then."""
    from watchfiles import awatch

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs every change
    watching = awatch(
        *folders,
        watch_filter=None,
        recursive=False,
        step=STEP_MS,
        debounce=DEBOUNCE_MS,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
    )
    try:
        async with aclosing(watching):
            async for event in watching:
                yield event
    except (OSError, RuntimeError, ExceptionGroup) as error:  # gone by now, or no watches left
        log.debug("%s cannot be watched: %s", ", ".join(map(str, folders)), error)
    while True:
        await asyncio.sleep(LOOK_MS / 1000)
        yield None


def _target(step: Path) -> Path | None:
    """Return where a link leads; None if it is not a link, or cannot be read."""
    try:
        return step.readlink()
    except (OSError, ValueError):
        return None


def _folders(file: Path) -> frozenset[Path]:
    """Return the folders of `file`, of each symlink on the way there, or the last that exists."""
    found: set[Path] = set()
    here, rest = Path(file.anchor), [*reversed(file.parts[1:])]
    links = 0
    while rest and links <= MAX_LINKS:
        name = rest.pop()
        step = here.parent if name == ".." else here / name
        target = _target(step)
        if target:
            links += 1
            found.add(here)
            if target.is_absolute():
                here = Path(target.anchor)
            rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        elif not rest or not is_folder(step):
            found.add(here)
            break
        else:
            here = step
    return frozenset(found)
