"""What a server on this machine says of itself at `GET /health`, emberd or the one it replaces."""

import http.client
import json
import socket
from typing import Any

OLD_FIELDS = {"status", "model", "dimensions", "loaded"}


class _BySocket(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def read_health(host: str, port: int, *, timeout_s: float) -> dict[str, Any] | None:
    """Return the answer; None when none comes, or something else than a JSON object."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return _read(http.client.HTTPConnection(here, port, timeout=timeout_s))


def read_health_by_socket(path: str, *, timeout_s: float) -> dict[str, Any] | None:
    """Return the same of who listens on a Unix socket."""
    return _read(_BySocket(path, timeout_s))


def _read(connection: http.client.HTTPConnection) -> dict[str, Any] | None:
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read(2**20))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return health if isinstance(health, dict) else None


def is_old_server(health: dict[str, Any] | None) -> bool:
    """Say whether it is the server that emberd replaces: its four fields and no others."""
    return health is not None and health.keys() == OLD_FIELDS


def is_emberd(health: dict[str, Any] | None) -> bool:
    """Say whether it is emberd."""
    return health is not None and {"fingerprint", "models", "version"} <= health.keys()
