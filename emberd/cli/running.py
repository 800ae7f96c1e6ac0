"""`state/server.json`: how client commands find the server of this home; at most one runs there.

Which is kept by a lock on `state/server.flock`, which the system drops with the process.
"""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from emberd.registry.state import write_atomically
from emberd.service.running import Running, path_of, read

__all__ = ["Running", "claim", "read", "remove", "write"]


def claim(state: Path) -> int | None:
    """Make this process the server of its home; None when another one is. Raises OSError.

    The descriptor is to be kept open as long as it is the server.
    """
    state.mkdir(0o700, parents=True, exist_ok=True)
    descriptor = os.open(state / "server.flock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def write(state: Path, running: Running) -> None:
    """Note that a server runs. Raises OSError."""
    write_atomically(path_of(state), json.dumps(asdict(running)))


def remove(state: Path) -> None:
    """Forget this process's server; another one's note stays."""
    noted = read(state)
    if noted and noted.pid == os.getpid():
        with suppress(OSError):
            path_of(state).unlink()
