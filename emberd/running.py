"""`state/server.json`: how client commands find the server of this home.

At most one runs per home: it holds a lock on `state/server.flock`, which ends with its process.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emberd import files
from emberd.flock import LockedError, hold
from emberd.replacing import replace_file
from emberd.state import DAMAGE

LONGEST = 4096  # characters: a path
NOT_IN_HOSTS = frozenset(" /?#@[]\\")


def url_of(host: str, port: int | None) -> str:
    """Return the URL of a server that listens there; without a port, the one for its socket.

    A server that listens on all interfaces is reached on loopback.
    """
    if port is None:
        return "http://localhost"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Running:
    """Where a server listens; written when it starts to, removed when it stops.

    `port` is None if it listens on its socket only. `instance` identifies this run: the value of
    its `X-Emberd-Instance` header.
    """

    pid: int
    host: str
    port: int | None
    version: str
    socket: str | None = None
    instance: str = ""

    @property
    def url(self) -> str:
        """The URL of the server; see `url_of`."""
        return url_of(self.host, self.port)

    @property
    def addresses(self) -> list[str]:
        """All places where it listens, for people to read."""
        at_port = [] if self.port is None else [self.url]
        return at_port + ([f"unix:{self.socket}"] if self.socket else [])

    @property
    def address(self) -> str:
        """The first of these places."""
        return self.addresses[0]


def path_of(state: Path) -> Path:
    """Return the path of the record."""
    return state / "server.json"


def read(state: Path) -> Running | None:
    """Return what was recorded; that server may have died since.

    A damaged or foreign file counts as none.
    """
    try:
        noted: dict[str, Any] = json.loads(files.read(path_of(state)))
        port, socket = noted["port"], noted.get("socket")
        host, version, instance = noted["host"], noted["version"], noted.get("instance", "")
        if not (
            _is_number(noted["pid"], 2**31)
            and (_is_text(socket) if port is None else _is_number(port, 2**16))
            and all(map(_is_text, (host, version, instance, socket or "")))
            and host
            and not set(host) & NOT_IN_HOSTS
        ):
            return None
        return Running(noted["pid"], host, port, version, socket, instance)
    except DAMAGE:
        return None


def claim(state: Path) -> int | None:
    """Make this process the server of its home; None if another one is. Raises OSError.

    It remains the server until the returned descriptor is closed or the process ends.
    """
    state.mkdir(0o700, parents=True, exist_ok=True)
    try:
        return hold(state / "server.flock", within_s=0)
    except LockedError:
        return None


def write(state: Path, running: Running) -> None:
    """Record where a server listens. Raises OSError."""
    state.mkdir(0o700, parents=True, exist_ok=True)
    replace_file(path_of(state), json.dumps(asdict(running)).encode())


def remove(state: Path) -> None:
    """Remove this process's record; another server's stays."""
    noted = read(state)
    if noted and noted.pid == os.getpid():
        with suppress(OSError):
            path_of(state).unlink()


def _is_number(value: object, end: int) -> bool:
    return type(value) is int and 0 < value < end


def _is_text(value: object) -> bool:
    """Whether it is safe for sockets, URLs and terminals."""
    return isinstance(value, str) and len(value) <= LONGEST and value.isprintable()
