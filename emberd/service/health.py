"""What a server on this machine says of itself at `GET /health`, emberd or the one it replaces."""

import http.client
import json
import socket
from typing import Any

from emberd.running import Running

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
    return _read(_by_port(host, port, timeout_s))


def read_health_of(noted: Running, *, timeout_s: float) -> dict[str, Any] | None:
    """Return what a server that noted itself says; None when it is not that very run."""
    connection: http.client.HTTPConnection
    if noted.port is None:
        connection = _BySocket(str(noted.socket), timeout_s)
    else:
        connection = _by_port(noted.host, noted.port, timeout_s)
    return _read(connection, noted.instance)


def read_health_by_socket(path: str, *, timeout_s: float) -> dict[str, Any] | None:
    """Return the same of who listens on a Unix socket."""
    return _read(_BySocket(path, timeout_s))


def _by_port(host: str, port: int, timeout_s: float) -> http.client.HTTPConnection:
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return http.client.HTTPConnection(here, port, timeout=timeout_s)


def _read(
    connection: http.client.HTTPConnection, instance: str | None = None
) -> dict[str, Any] | None:
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        if instance is not None and response.getheader("x-emberd-instance") != instance:
            return None
        health = json.loads(response.read(2**20))
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
