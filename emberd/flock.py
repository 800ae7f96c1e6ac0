"""Locks of files between processes (flock): tried for a while, and by whom they are held."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STEP_S = 0.05
LOCKS = Path("/proc/locks")  # Linux; elsewhere a holder is known by what it wrote into the file


@contextmanager
def locked(file: Path, within_s: float) -> Iterator[None]:
    """Hold a lock file of mode 0600, which is made when it is not there.

    Raises:
        OSError: it cannot be opened.
        TimeoutError: it was not free in time; its `strerror` says who holds it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        take(descriptor, file, within_s)
        try:
            with suppress(OSError):  # a full disk: then nobody can read who holds it
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            with suppress(OSError):
                os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def take(descriptor: int, file: Path, within_s: float) -> None:
    """Lock an open file, which is at `file`; raises TimeoutError as `locked`."""
    until_s = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until_s:
                problem = f"it is locked by {holder(descriptor)}"
                raise TimeoutError(errno.ETIMEDOUT, problem, str(file)) from None
        time.sleep(STEP_S)


def holder(descriptor: int) -> str:
    """Return who holds the lock of an open file: its process and command, as far as is known.

    Only the command's name is told: its arguments may be texts.
    """
    pid = _of_system(os.fstat(descriptor)) or _of_file(descriptor)
    if pid is None or pid == os.getpid():
        return "another process"
    import psutil  # 10 ms, which only who has to wait spends

    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"


def _of_system(status: os.stat_result) -> int | None:
    """Return the process that Linux says holds it: `1: FLOCK ADVISORY WRITE 77 08:01:131 0 EOF`.

    Stacked file systems have other device numbers there than in `stat`; then the inode has to do.
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


def _of_file(descriptor: int) -> int | None:
    """Return the process that noted itself when it took the lock."""
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 20, 0))
    return None
