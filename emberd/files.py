"""Files that others may change at any time: asking about one never fails, reading never hangs.

`pathlib` raises where a folder may not be entered or a name is too long, and a read waits for a
writer if a pipe has taken the file's place.
"""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 64 * 2**20  # of a config, state or description file; weights are not read this way


def is_file(path: Path) -> bool:
    """Whether a regular file can be seen there; links are followed."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_folder(path: Path) -> bool:
    """Whether a folder can be seen there; links are followed."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def is_link(path: Path) -> bool:
    """Whether a link can be seen there."""
    return os.path.islink(path)  # noqa: PTH114 - see above


def bytes_in(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def is_gone(path: Path) -> bool:
    """Whether there is certainly nothing there; a file that cannot be checked is not gone."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it cannot be checked."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def read(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file; the null device is an empty one.

    Raises:
        OSError: it cannot be read, is something else (a folder, a pipe, a device), or is larger.
    """
    return read_owned(path, most_bytes)[0]


def read_owned(path: Path, most_bytes: int = MOST_BYTES) -> tuple[bytes, os.stat_result]:
    """Return the content and the status (its owner, for one). Raises OSError as `read` does."""
    # Without blocking: opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    kind = _kind(status)
    if kind:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    with os.fdopen(descriptor, "rb") as file:  # a folder would make it fail, and stay open
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, "it is too large for a file of this kind", str(path))
    return content, status


def delete_tree(folder: Path, *, ignore_errors: bool = False) -> None:
    """Delete a folder and all in it. Raises OSError, unless errors are to be ignored."""
    import shutil  # with all its kinds of archives; a cold start seldom deletes

    shutil.rmtree(folder, ignore_errors=ignore_errors)


def _kind(status: os.stat_result) -> str | None:
    """Say what it is if it is not a file; None for a file."""
    mode = status.st_mode
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and status.st_rdev == os.stat(os.devnull).st_rdev):  # noqa: PTH116
        return None
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
