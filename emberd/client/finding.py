"""How a running server is found: by its record in the state folder, or by what the user says."""

import shlex
from pathlib import Path
from typing import TypeVar

from emberd import running
from emberd.client.address import Address
from emberd.client.health import is_emberd, read_health
from emberd.config.load import Config
from emberd.config.tokens import read_token_file
from emberd.errors import ConfigError, NoServerError

# If no server listens, the connection is refused at once. One that listens may be slow on a busy
# machine, and if it were taken for absent, a command would load the model a second time.
HEALTH_TIMEOUT_S = 10.0

T = TypeVar("T")


def find_address(config: Config) -> Address | None:
    """Return where the server is: as a flag or the environment says, or else as its record says.

    If an address was given, only that one is tried. Nothing else is guessed: a server that has no
    record in this home belongs to another one, with other models and another configuration.
    """
    server = config.settings.server
    named = {
        key
        for key in ("host", "port", "socket")
        if config.origins[f"server.{key}"].startswith(("$", "--"))
        and (key != "socket" or server.socket)  # an empty $EMBERD_SERVER_SOCKET names none
    }
    if not named:
        return find_noted_address(config.homes.state, _token(config))
    socket = None if named & {"host", "port"} and server.port is not None else server.socket
    address = Address(running.url_of(server.host, server.port), socket, _token(config))
    return address if answers(address) else None


def find_noted_address(state: Path, token: str | None) -> Address | None:
    """Return where the server that is recorded in a state folder is, if it still answers."""
    noted = running.read(state)
    if noted is None:
        return None
    by_socket = [noted.socket] if noted.socket else []
    by_port = [] if noted.port is None else [None]
    addresses = (Address(noted.url, socket, token) for socket in by_socket + by_port)
    return next((address for address in addresses if answers(address, noted.instance)), None)


def answers(address: Address, instance: str | None = None) -> bool:
    """Return whether emberd answers there; with `instance`, whether it is that very run."""
    return is_emberd(read_health(address, timeout_s=HEALTH_TIMEOUT_S, instance=instance))


def require(found: T | None) -> T:
    """Return what was found, or raise `NoServerError`."""
    if found is None:
        raise NoServerError("No emberd server is running.", hint="Start one with `emberd serve`.")
    return found


def require_file(address: str, read: str, file: Path) -> None:
    """Raise `ConfigError` unless the server reads this file; `read` is the one /reload names."""
    if read != str(file):
        raise ConfigError(
            f"The server at {address} reads {read}, not {file}.",
            hint=f"Add `--config {shlex.quote(read)}`.",
        )


def _token(config: Config) -> str | None:
    """Return the token from the environment, or else the first one in the file."""
    file = config.settings.server.token_file
    if config.token or not file:
        return config.token
    return read_token_file(Path(file))[0]
