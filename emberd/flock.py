"""Locks between processes, by flock on a file: a lock ends with the process that holds it.

The locked file exists only for that and is never the data itself: data is replaced by rename, and
a lock on the old file would say nothing about the new one.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STEP_S = 0.05
LOCKS = Path("/proc/locks")  # Linux; elsewhere the holder is known by what it wrote into the file


class LockedError(TimeoutError):
    """Another process holds the lock; `holder` says which one, if that is known."""

    def __init__(self, file: Path, holder: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"it is locked by {holder}", str(file))
        self.holder = holder


@contextmanager
def locked(file: Path, within_s: float, *, leave: bool = True) -> Iterator[None]:
    """Hold a lock file of mode 0600; it is created if it does not exist.

    Args:
        file: the lock file.
        within_s: how long to wait for another process.
        leave: keep the file afterwards; False for a lock file in a folder that is not ours.

    Raises:
        OSError: the file cannot be opened.
        LockedError: another process held it for the whole time.
    """
    descriptor = hold(file, within_s)
    try:
        yield
    finally:
        with suppress(OSError):
            if leave:
                os.truncate(descriptor, 0)
            else:
                file.unlink()  # whoever waits for it sees that it is gone, and creates another
        os.close(descriptor)


def hold(file: Path, within_s: float) -> int:
    """Lock as `locked` does, until the returned descriptor is closed or this process ends."""
    while True:
        # Without blocking: a pipe may have taken the file's place.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(file, flags, 0o600)
        try:
            _lock(descriptor, file, within_s)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                with suppress(OSError):  # a full disk: then nobody can read who holds it
                    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
        except FileNotFoundError:
            pass  # who held it before has removed it
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def holder_of(file: Path) -> str:
    """Say who holds a lock file of anybody's, as far as the system or the file itself tells."""
    with suppress(OSError), file.open() as opened:
        return _holder(opened.fileno())
    return "another process"


def _lock(descriptor: int, file: Path, within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise LockedError(file, _holder(descriptor)) from None
        else:
            return
        time.sleep(STEP_S)


def _holder(descriptor: int) -> str:
    """Say who holds the lock of an open file: the process and its command, if they are known.

    Only the command's name is given, as its arguments may be texts.
    """
    pid = _by_system(os.fstat(descriptor)) or _by_note(descriptor)
    if pid is None or pid == os.getpid():
        return "another process"
    import psutil  # 10 ms, spent only where something is locked

    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"


def _by_system(status: os.stat_result) -> int | None:
    """Return the process that Linux names: `1: FLOCK ADVISORY WRITE 77 08:01:131 0 EOF`.

    Stacked file systems have other device numbers there than in `stat`; then the inode must do.
    Source: man7.org/linux/man-pages/man5/proc_locks.5.html
    """
    with suppress(OSError, ValueError, IndexError):
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        locks = [line.split() for line in LOCKS.read_text().splitlines()]
        held = [words for words in locks if words[1] == "FLOCK"]  # `->` waits for one
        exact = [words for words in held if words[5] == place]
        near = [words for words in held if words[5].endswith(f":{status.st_ino}")]
        for words in (*exact, *near):
            return int(words[4]) if int(words[4]) > 0 else None
    return None


def _by_note(descriptor: int) -> int | None:
    """Return the process that wrote its id into the file when it took the lock."""
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 20, 0))
    return None
