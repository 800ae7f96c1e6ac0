"""`emberd serve`: bind, tell others where, run until a signal. The one home of uvicorn."""

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd import __version__
from emberd.cli.context import Root
from emberd.errors import ConfigError, PortTakenError

if TYPE_CHECKING:
    from emberd.config.load import Config

BACKLOG = 2048
MANY_FILES = 8192
DRAIN_S = 8  # for requests in flight; who is not answered by then gets a 503
SHUTDOWN_GRACE_S = 10  # for connections that hang on even so

log = logging.getLogger("emberd")


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option(help="Listen on this address.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port; 0 takes any.")] = None,
    default: Annotated[str | None, typer.Option(help="Model for who names none.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the server until Ctrl-C or TERM."""
    root: Root = ctx.obj
    config = root.load({("server", "host"): host, ("server", "port"): port, ("default",): default})
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise ConfigError(f"--log-level: there is no level {log_level!r}.", hint="Try info.")
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    listener = _bind(config)
    if listener is not None:
        _run(config, listener)


def _bind(config: "Config") -> socket.socket | None:
    """Return a listening socket; None when emberd already runs there."""
    host, port = config.settings.server.host, config.settings.server.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        _explain_unbound(config, error)
        return None
    listener.listen(BACKLOG)
    return listener


def _explain_unbound(config: "Config", error: Exception) -> None:
    """Say that emberd runs there already, or raise an error that says who does."""
    from emberd.cli import client, running

    server = config.settings.server
    place = running.Running(0, server.host, server.port, "")
    taken = getattr(error, "errno", None) == errno.EADDRINUSE
    if taken and client.is_emberd(place.url):
        typer.echo(f"emberd already runs at {place.url}; see `emberd ps`.")
        return
    reason = getattr(error, "strerror", None) or str(error)
    raise PortTakenError(
        f"emberd cannot listen on {server.host}:{server.port}: {reason.lower()}"
        f"{_who_listens(server.port) if taken else ''}.",
        hint="End that process, or choose another port with `--port`."
        if taken
        else "Choose an address of this machine with `--host`, and a port above 1023.",
    )


def _who_listens(port: int) -> str:
    import psutil

    for process in psutil.process_iter(["pid", "name"]):
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return f", held by {process.name()} (pid {process.pid})"
        except psutil.Error:
            continue  # another user's process
    return ""


def _allow_many_connections() -> None:
    """Raise the soft limit on open files, 256 on macOS, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MANY_FILES) if hard != resource.RLIM_INFINITY else MANY_FILES
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run(config: "Config", listener: socket.socket) -> None:
    import uvicorn

    from emberd.api.app import create_app
    from emberd.cli import running

    host, port = config.settings.server.host, listener.getsockname()[1]
    _allow_many_connections()
    app = create_app(config)
    here = running.Running(os.getpid(), host, port, __version__)

    class Server(uvicorn.Server):
        """uvicorn's, which notes where it runs, and ends by returning, not by a signal."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            before = {
                number: signal.signal(number, self.handle_exit)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
            yield
            for number, handler in before.items():
                signal.signal(number, handler)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            drain = asyncio.create_task(app.state.pool.drain(DRAIN_S))
            await super().shutdown(sockets)
            await drain

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            running.write(config.homes.state, here)
            log.info(
                "emberd %s listens on %s, default model %s",
                __version__, here.url, config.settings.default,
            )  # fmt: skip

    settings: dict[str, Any] = {
        "lifespan": "on",
        "http": "httptools",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": SHUTDOWN_GRACE_S,
    }
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        Server(uvicorn.Config(app, **settings)).run(sockets=[listener])
    except OSError as error:
        raise ConfigError(
            f"The state folder {config.homes.state} cannot be written: {error.strerror}.",
            hint="Correct its permissions, or set EMBERD_HOME to a folder of yours.",
        ) from None
    finally:
        running.remove(config.homes.state)
    log.info("emberd has ended")
