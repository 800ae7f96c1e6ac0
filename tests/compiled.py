"""Compiled models that the servers of all tests share: compiling MiniLM costs a second of CPU.

A test process keeps a folder of them. A server that stops leaves what it compiled there; the next
one finds it in its own home, as hard links: whoever deletes one deletes only its own.
"""

import atexit
import functools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


@functools.cache
def _shared() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="emberd-compiled-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def lend(home: Path) -> None:
    """Put into a home's cache what others have compiled."""
    _link_all(_shared(), home / "cache")


def keep(home: Path) -> None:
    """Keep what was compiled in this home, for others."""
    _link_all(home / "cache", _shared())


def _link_all(source: Path, target: Path) -> None:
    for file in source.glob("*/*/*.blob"):
        linked = target / file.relative_to(source)
        with suppress(OSError):  # it is there, or gone by now, or this home takes no files
            linked.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(file, linked)
