"""`state/server.json`: where the server of this home listens; `cli/running.py` writes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emberd import files
from emberd.registry.state import DAMAGE

LONGEST = 4096  # characters: a path
NOT_IN_HOSTS = frozenset(" /?#@[]\\")


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


def path_of(state: Path) -> Path:
    """Return the file."""
    return state / "server.json"


def read(state: Path) -> Running | None:
    """Return what was noted; its server may have died since.

    None also for what no server can have noted, as a damaged or foreign file holds.
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


def _is_number(value: object, end: int) -> bool:
    return type(value) is int and 0 < value < end


def _is_text(value: object) -> bool:
    """Whether no socket, URL or terminal chokes on it."""
    return isinstance(value, str) and len(value) <= LONGEST and value.isprintable()
