"""`state/server.json`: how client commands find the server that runs on this machine."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emberd.registry.lock import write_atomically


@dataclass(frozen=True, slots=True)
class Running:
    """Where a server listens; written once it does, removed when it ends."""

    pid: int
    host: str
    port: int
    version: str

    @property
    def url(self) -> str:
        """The address to ask; a server on all interfaces is asked on loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def _path(state: Path) -> Path:
    return state / "server.json"


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
        return Running(
            int(noted["pid"]), str(noted["host"]), int(noted["port"]), str(noted["version"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
