"""What a server, emberd or another, says about itself at `GET /health`, and whether it is ready."""

from typing import Any

import httpx2

from emberd.client.address import Address
from emberd.running import Running

EMBERD_FIELDS = {"fingerprint", "models", "version"}


def read_health(
    address: Address, *, timeout_s: float, instance: str | None = None
) -> dict[str, Any] | None:
    """Return the answer; None if there is none, or if it is not a JSON object.

    With `instance`, also None unless the answer's `X-Emberd-Instance` is that one.
    """
    response = _get(address, "/health", timeout_s)
    if response is None:
        return None
    if instance is not None and response.headers.get("x-emberd-instance") != instance:
        return None
    try:
        health = response.json()
    except ValueError:
        return None
    return health if isinstance(health, dict) else None


def read_health_of(noted: Running, *, timeout_s: float) -> dict[str, Any] | None:
    """Return what the recorded server says; None if it is not that very run."""
    address = Address(noted.url, noted.socket if noted.port is None else None)
    return read_health(address, timeout_s=timeout_s, instance=noted.instance)


def is_emberd(health: dict[str, Any] | None) -> bool:
    """Return whether that is emberd's answer."""
    return health is not None and health.keys() >= EMBERD_FIELDS


def is_ready(address: Address, *, timeout_s: float) -> bool:
    """Return whether the server answers `GET /ready` with 200."""
    response = _get(address, "/ready", timeout_s)
    return response is not None and response.status_code == 200


def _get(address: Address, path: str, timeout_s: float) -> httpx2.Response | None:
    """Ask without a token. Whatever a server does, nothing is raised."""
    transport = httpx2.HTTPTransport(**address.transport)
    try:
        with httpx2.Client(transport=transport, timeout=timeout_s) as http:
            return http.get(f"{address.url}{path}")
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return None
