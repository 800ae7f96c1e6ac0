"""`state/server.json`: where the server of this home listens; `cli/running.py` writes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emberd.registry.state import DAMAGE


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
    """Return what was noted; its server may have died since."""
    try:
        noted: dict[str, Any] = json.loads(path_of(state).read_bytes())
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
