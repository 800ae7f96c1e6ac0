"""Files that are mapped, not read: their pages are memory of this process only while it reads them.

A library that is given mapped weights reads each of them once or twice, to check it and to make its
own copy. Without help, the file would stay in memory beside the copies.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import numpy.typing as npt

_EVERY_S = 0.02


def map_file(path: Path) -> mmap.mmap:
    """Map a file that is not empty.

    Copy-on-write, so that arrays in it count as writable, which is the only kind that OpenVINO
    borrows. Nobody may write to them: `release` would undo it.
    """
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def release(pages: mmap.mmap, start: int = 0, stop: int | None = None) -> None:
    """Stop counting pages as memory of this process.

    A page that is needed again comes back from the system's file cache.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        stop = len(pages) if stop is None else stop
        pages.madvise(mmap.MADV_DONTNEED, start, stop - start)


def is_mapped(values: npt.NDArray[Any]) -> bool:
    """Say whether an array is in the pages of a mapped file."""
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


class Scratch:
    """Copies of arrays in files that have no name, whose pages can be released.

    They take a third of a disk's free space at most: what they are for will be written there, too.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder; it need not exist."""
        self._folder = folder
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        self._mapped: list[mmap.mmap] = []
        self._bytes = 0

    def put(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a copy in a file; what cannot be written is returned as it is."""
        import tempfile  # a start that compiles nothing does not need it

        taken = self._bytes + values.nbytes
        try:
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize < 2 * taken:
                return values
            with tempfile.TemporaryFile(dir=self._folder) as file:
                # Not through the mapping: on a full disk, that would end the process.
                file.write(np.ascontiguousarray(values).data)
                file.flush()
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError:
            return values
        self._bytes = taken
        self._mapped.append(pages)
        return np.frombuffer(pages, values.dtype).reshape(values.shape)

    def release(self) -> None:
        """Release the pages of all copies."""
        for pages in tuple(self._mapped):
            release(pages)


@contextmanager
def released_meanwhile(give_back: Callable[[], None]) -> Iterator[None]:
    """Call `give_back` again and again, in a thread, while the body runs; and once at its end."""
    done = Event()

    def run() -> None:
        while not done.wait(_EVERY_S):
            give_back()

    thread = Thread(target=run, name="giving pages back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        give_back()
