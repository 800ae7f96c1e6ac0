"""`state/server.json`: how client commands find the server of this home; at most one runs there.

Which is kept by a lock on `state/server.flock`, which the system drops with the process.
"""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emberd.registry.state import DAMAGE, write_atomically


@dataclass(frozen=True, slots=True)
class Running:
    """Where a server listens; written once it does, removed when it ends.

    `port` None: on its socket only. `instance` is what this run says in `X-Emberd-Instance`.
    """

    pid: int
    host: str
    port: int | None
    version: str
    socket: str | None = None
    instance: str = ""

    @property
    def url(self) -> str:
        """The address to ask; a server on all interfaces is asked on loopback."""
        if self.port is None:
            return "http://localhost"  # by the socket
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def address(self) -> str:
        """The same for people."""
        return f"unix:{self.socket}" if self.port is None else self.url


def _path(state: Path) -> Path:
    return state / "server.json"


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
    write_atomically(_path(state), json.dumps(asdict(running)))


def remove(state: Path) -> None:
    """Forget this process's server; another one's note stays."""
    noted = read(state)
    if noted and noted.pid == os.getpid():
        with suppress(OSError):
            _path(state).unlink()


def read(state: Path) -> Running | None:
    """Return what was noted; its server may have died since."""
    try:
        noted: dict[str, Any] = json.loads(_path(state).read_bytes())
        port, socket = noted["port"], noted.get("socket")
        return Running(
            int(noted["pid"]),
            str(noted["host"]),
            None if port is None else int(port),
            str(noted["version"]),
            None if socket is None else str(socket),
            str(noted.get("instance", "")),
        )
    except DAMAGE:
        return None
