"""Files that are mapped, not read: their pages are memory of this process only while it reads them.

A library that is given mapped weights reads each of them once or twice, to check it and to make its
own copy. Without help, the file would stay in memory beside the copies.
"""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

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
