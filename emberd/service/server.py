"""The server that a service runs: how to start it, where it answers, what is in its way."""

import sys

from emberd.client.address import Address
from emberd.config.environment import for_a_service
from emberd.config.load import Config
from emberd.errors import ConfigError
from emberd.running import url_of
from emberd.service import logs
from emberd.service.port import Holder, who_holds, who_holds_socket
from emberd.service.unit import Manager, Unit

READY_TIMEOUT_S = 2.0


def address_of(config: Config) -> Address:
    """Return where the service answers: at its port, or at its socket if it has no port."""
    server = config.settings.server
    url = url_of(server.host, server.port)
    return Address(url, server.socket if server.port is None else None)


def is_ready(config: Config) -> bool:
    """Whether the server answers `GET /ready` with 200."""
    from emberd.client import health  # its HTTP library is slow to import

    return health.is_ready(address_of(config), timeout_s=READY_TIMEOUT_S)


def unit_of(config: Config, *, names_config: bool) -> tuple[Unit, list[str]]:
    """Return how the manager should run the server: with this same Python and configuration.

    Args:
        config: the configuration to run it with.
        names_config: whether a flag named the config file, so that the service needs its path.

    Returns:
        The unit, and the names of variables left out of it because they hold a secret.

    Raises:
        ConfigError: there is no fixed address for the server to listen on.
    """
    server = config.settings.server
    if server.port == 0 or (server.port is None and not server.socket):
        raise ConfigError(
            f"{config.origins['server.port']}: server.port: a service needs a fixed port, or `off`"
            " and a `server.socket`.",
            hint="Set one; the default is 8767.",
        )
    environ, left_out = for_a_service()
    if names_config:
        environ["EMBERD_CONFIG"] = str(config.homes.config)
    if config.origins["log.file"] == "default":  # else it is in the file, or already in `environ`
        environ["EMBERD_LOG_FILE"] = str(config.homes.state / logs.LOG)
    unit = Unit(
        # -P: never import from the folder that the manager starts it in
        argv=(sys.executable, "-P", "-m", "emberd.cli.main", "serve"),
        environ=environ,
        stderr=config.homes.state / logs.STDERR_LOG,
    )
    return unit, left_out


def holder(config: Config, manager: Manager) -> Holder | None:
    """Return who holds the port or socket, except our own service, which will release it.

    Raises:
        ConfigError: nothing can listen there.
    """
    server = config.settings.server
    try:
        if server.port is None:
            where = str(server.socket)
            hint = "Set `server.socket` to a path in a folder that you can write to."
            found = who_holds_socket(where)
        else:
            where = f"{server.host}:{server.port}"
            hint = "Set `server.host` to an address of this machine, and use a port above 1023."
            found = who_holds(server.host, server.port)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"emberd cannot listen on {where}: {error}.", hint=hint) from None
    return None if found and found.pid and found.pid == manager.status().pid else found
