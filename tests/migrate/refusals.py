"""A folder that may only be read, and a Python without a library: for stores of any kind."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody but root write into a folder and those below it."""
    folders = [folder, *(each for each in folder.rglob("*") if each.is_dir())]
    for each in folders:
        each.chmod(0o500)
    try:
        yield
    finally:
        for each in folders:
            each.chmod(0o700)


def said_without(library: str, path: Path, kind: str | None) -> bytes:
    """Return what a Python that cannot import a library says when it opens a store."""
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from pathlib import Path\nfrom emberd.stores.plugins import open_store\n"
        f"open_store(Path({str(path)!r}), kind={kind!r}, options={{}}).inspect()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True).stderr
