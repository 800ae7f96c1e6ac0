"""What client commands ask a running server, and how it is found."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from emberd import running
from emberd.config.load import Config
from emberd.config.tokens import read_token_file
from emberd.errors import ConfigError, NoServerError, from_code

HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where to ask: a URL, by a Unix socket if there is one, with a token if there is one."""

    url: str
    socket: str | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def name(self) -> str:
        """The place, for people."""
        return f"unix:{self.socket}" if self.socket else self.url


class Client:
    """A connection to one server; errors arrive as the same classes that the server raised."""

    def __init__(self, place: Place) -> None:
        self.url = place.name
        self._http = httpx2.Client(
            base_url=place.url, timeout=None, headers=place.headers, transport=_transport(place)
        )

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


def _transport(place: Place) -> httpx2.HTTPTransport:
    return httpx2.HTTPTransport(uds=place.socket, trust_env=False)


def is_emberd(url: str, socket: str | None = None, instance: str | None = None) -> bool:
    """Whether emberd answers there; with `instance`, whether it is that very run of it."""
    try:
        with httpx2.Client(
            transport=_transport(Place(url, socket)), timeout=HEALTH_TIMEOUT_S
        ) as http:
            response = http.get(f"{url}/health")
            health = response.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False
    if instance is not None and response.headers.get("x-emberd-instance") != instance:
        return False
    return isinstance(health, dict) and {"fingerprint", "models", "version"} <= health.keys()


def find_place(config: Config) -> Place | None:
    """Return where the server is: where flag or environment say, else where it noted itself.

    An address that was named is the only one asked. Nothing else is guessed: a server that did not
    note itself in this home is another home's, with other models and another configuration.
    """
    server = config.settings.server
    named = {
        key
        for key in ("host", "port", "socket")
        if config.origins[f"server.{key}"].startswith(("$", "--"))
        and (key != "socket" or server.socket)  # an empty $EMBERD_SERVER_SOCKET names none
    }
    if named:
        socket = None if named & {"host", "port"} and server.port is not None else server.socket
        url = running.Running(0, server.host, server.port, "").url
        place = Place(url, socket, _token(config))
        return place if is_emberd(url, socket) else None
    noted = running.read(config.homes.state)
    return _check(noted, _token(config)) if noted else None


def _check(noted: running.Running, token: str | None) -> Place | None:
    for socket in dict.fromkeys((noted.socket, None)):
        reachable = socket is not None or noted.port is not None
        if reachable and is_emberd(noted.url, socket, noted.instance):
            return Place(noted.url, socket, token)
    return None


def _token(config: Config) -> str | None:
    """Return the token of the environment, else the first of the file."""
    file = config.settings.server.token_file
    if config.token or not file:
        return config.token
    return read_token_file(Path(file))[0]


def find(config: Config) -> Client | None:
    """Return the running server of this home, or the one that flag or environment name."""
    place = find_place(config)
    return Client(place) if place else None


def find_noted(state: Path, token: str | None) -> Client | None:
    """Return the server that noted itself in the state folder, whatever the configuration says."""
    noted = running.read(state)
    place = _check(noted, token) if noted else None
    return Client(place) if place else None


def require(server: Client | None) -> Client:
    """Return the running server, or raise `NoServerError`."""
    if server is None:
        raise NoServerError("No emberd server is running.", hint="Start one with `emberd serve`.")
    return server


def require_file(server: Client, read: str, file: Path) -> None:
    """Raise `ConfigError` unless the file that the server reads, as /reload says, is this one."""
    if read != str(file):
        raise ConfigError(
            f"The server at {server.url} reads {read}, not {file}.",
            hint=f"Add `--config {shlex.quote(read)}`.",
        )
