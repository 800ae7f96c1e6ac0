"""Replace a file in one step: readers see the old one or the new one, never half of one.

The new file is written beside the old one and renamed over it. If anything goes wrong before that,
the old file stays as it was and the new one is removed; only a kill leaves the new one behind.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(
    path: Path,
    *,
    mode: int = 0o600,
    keep: bool = False,
    sync: bool = True,
    temporary: Path | None = None,
) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the block has written it.

    A link at `path` is replaced, not followed: resolve it first to replace what it points to.

    Args:
        path: the file to replace; it need not exist, but its folder must.
        mode: the mode of the new file, less the umask.
        keep: give it the mode and owner of the file that it replaces, if there is one.
        sync: flush it to disk before it is seen; unnecessary where damage would be noticed.
        temporary: where to write it; by default, a new name beside `path` that ends in `.part`.
            A file left there by a run that was killed is overwritten, so only one process at a
            time may use a given name.

    Raises:
        OSError: it cannot be written; `path` is unchanged.
    """
    if temporary is None:
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    else:
        temporary.unlink(missing_ok=True)
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if keep:
                _take_after(path, descriptor)
            yield file
            file.flush()
            if sync:
                os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        _sync_folder(path.parent)


def replace_file(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    keep: bool = False,
    temporary: Path | None = None,
) -> None:
    """Replace a file with `content`; see `replacing`."""
    with replacing(path, mode=mode, keep=keep, temporary=temporary) as file:
        file.write(content)


def _take_after(path: Path, descriptor: int) -> None:
    """Give an open file the mode and owner of the one at `path`."""
    try:
        before = path.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # only root can give a file away
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself to disk; if that fails, the file is already in place."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
