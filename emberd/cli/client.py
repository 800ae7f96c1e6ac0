"""What client commands ask a running server."""

from typing import Any

import httpx2

from emberd.cli import running
from emberd.config.load import Config
from emberd.errors import NoServerError, from_code

HEALTH_TIMEOUT_S = 2.0


class Client:
    """A connection to one server; errors arrive as the same classes that the server raised."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx2.Client(base_url=url, timeout=None, trust_env=False)

    def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object."""
        return self._ask("GET", path, None)

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON object, get one back."""
        return self._ask("POST", path, content)

    def _ask(self, method: str, path: str, content: dict[str, Any] | None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=content)
            data: dict[str, Any] = response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise NoServerError(
                f"The server at {self.url} ended before it answered ({type(error).__name__}).",
                hint="Look at its log, start it with `emberd serve`, and ask again.",
            ) from None
        if response.is_success:
            return data
        raise from_code(data.get("code", ""), str(data.get("detail")), data.get("hint"))


def is_emberd(url: str) -> bool:
    """Whether emberd answers at `url`."""
    try:
        health = httpx2.get(f"{url}/health", timeout=HEALTH_TIMEOUT_S, trust_env=False).json()
    except (httpx2.HTTPError, ValueError):
        return False
    return isinstance(health, dict) and {"fingerprint", "models", "version"} <= health.keys()


def find(config: Config) -> Client | None:
    """Return the running server: the one that noted itself, else the one where config says."""
    noted = running.read(config.homes.state)
    server = config.settings.server
    here = running.Running(0, server.host, server.port, "")
    for url in dict.fromkeys(place.url for place in (noted, here) if place):
        if is_emberd(url):
            return Client(url)
    return None


def require(config: Config) -> Client:
    """Return the running server, or raise `NoServerError`."""
    client = find(config)
    if client is None:
        raise NoServerError("No emberd server is running.", hint="Start one with `emberd serve`.")
    return client
