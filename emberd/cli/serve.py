"""`emberd serve`: bind, tell others where, run until a signal. The one home of uvicorn."""

import asyncio
import gc
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd import __version__
from emberd.cli.context import Root, complete_model, print_error
from emberd.errors import ConfigError, PortTakenError
from emberd.service.unit import CONFIG_EXIT
from emberd.units import format_size

if TYPE_CHECKING:
    from emberd.config.document import Keys
    from emberd.config.live import LiveConfig
    from emberd.config.load import Config

MANY_FILES = 8192
DRAIN_S = 8  # for requests in flight; who is not answered by then gets a 503
SHUTDOWN_GRACE_S = 10  # for connections that hang on even so

log = logging.getLogger("emberd")


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Listen on this address.", show_default="127.0.0.1"),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(
            metavar="PORT",
            help="Listen on this port; 0 takes any that is free, off takes none.",
            show_default="8767",
        ),
    ] = None,
    default: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model for requests that name none.",
            autocompletion=complete_model,
            show_default="minilm",
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning or error.", show_default="info"),
    ] = None,
    allow_open: Annotated[
        bool,
        typer.Option(
            "--allow-open", help="Let other machines ask without a token (see docs/security.md)."
        ),
    ] = False,
) -> None:
    """Run the server until Ctrl-C.

    Models load when they are first asked for. Options beat the config file for this run. Exit code
    78: a setting has to be corrected first.
    """
    root: Root = ctx.obj
    flags: dict[Keys, Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "allow_open"): allow_open or None,
        ("default",): default,
        ("log", "level"): log_level.lower() if log_level else None,
    }
    try:
        _serve(root, flags)
    except ConfigError as error:
        print_error(error)
        raise typer.Exit(CONFIG_EXIT) from None


def _serve(root: Root, flags: "dict[Keys, Any]") -> None:
    config = root.load(flags)
    claimed = _claim(config)
    if claimed is None:
        return
    _set_up_logs(config)
    from emberd.config.live import LiveConfig

    _run(LiveConfig(config, lambda: root.read(flags)))


def _claim(config: "Config") -> int | None:
    """Become the server of this home; None when one runs where this one should."""
    from emberd import running

    try:
        claimed = running.claim(config.homes.state)
    except OSError as error:
        raise _state_unwritable(config, error) from None
    if claimed is not None:
        return claimed
    noted = running.read(config.homes.state)
    where = noted.address if noted else "an address it has not noted yet"
    server = config.settings.server
    if noted and (noted.host, noted.port) == (server.host, server.port):
        typer.echo(f"emberd already runs at {where}; see `emberd ps`.")
        return None
    raise PortTakenError(
        f"emberd already runs at {where}, with the state folder {config.homes.state}.",
        hint="End that server, or give this one an EMBERD_HOME of its own.",
    )


def _state_unwritable(config: "Config", error: OSError) -> ConfigError:
    return ConfigError(
        f"The state folder {config.homes.state} cannot be written: {error.strerror}.",
        hint="Correct its permissions, or set EMBERD_HOME to a folder of yours.",
    )


def _set_up_logs(config: "Config") -> None:
    from emberd import logs

    to = config.settings.log
    try:
        logs.set_up(to.level, to.format, to.file, to.max_bytes, to.backups)
    except OSError as error:
        raise ConfigError(
            f"log.file: {to.file} cannot be written: {error.strerror}.",
            hint="Choose a file in a folder of yours that exists.",
        ) from None


def _give_back(config: "Config") -> None:
    """Delete the compiled models that no entry would use any more."""
    from emberd.models import compiled
    from emberd.spaces.lock import LockFile

    entries = LockFile(config.homes.state).read()
    models = [(spec, entries.get(spec.name)) for spec in config.catalog]
    with suppress(OSError):  # another process may do the same
        freed = compiled.give_back(compiled.unused(config.homes.cache, models))
        if freed:
            log.info("%s of compiled models that none uses any more came back", format_size(freed))


def _allow_many_connections() -> None:
    """Raise the soft limit on open files, 256 on macOS, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MANY_FILES) if hard != resource.RLIM_INFINITY else MANY_FILES
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _has_terminal() -> bool:
    """Whether this process can be typed at; one whose window was closed has none any more."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) >= 0
    except (OSError, ValueError):
        return False


def _run(live: "LiveConfig") -> None:
    import uvicorn

    from emberd import running
    from emberd.api.access import Tokens
    from emberd.api.app import create_app
    from emberd.config.environment import take_notify_socket
    from emberd.server import connection, notify, sockets

    notifier = notify.Notifier(take_notify_socket())
    config = live.config
    server = config.settings.server
    tokens = Tokens(config.token, Path(server.token_file) if server.token_file else None)
    listeners = sockets.listen(server, has_token=tokens.wanted)
    files = sockets.sockets_of(listeners)
    port = None if server.port is None else listeners[0].getsockname()[1]
    instance = secrets.token_hex(8)
    _allow_many_connections()
    connection.Connection.most = connection.most_connections()
    app = create_app(live, tokens, instance)
    here = running.Running(os.getpid(), server.host, port, __version__, server.socket, instance)
    reloads: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of its tasks

    class Server(uvicorn.Server):
        """uvicorn's, which says where and how it runs, and ends by returning, not by a signal."""

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
            notifier.tell(notify.STOPPING, "STATUS=answers what it has")
            drain = asyncio.create_task(app.state.pool.drain(DRAIN_S))
            await super().shutdown(sockets)
            await drain

        def hang_up(self, had_terminal: bool) -> None:
            """Reload; end instead when the terminal it was started in is gone."""
            if had_terminal and not _has_terminal():
                self.handle_exit(signal.SIGHUP, None)
                return
            task = asyncio.create_task(live.try_reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self.hang_up, _has_terminal())
            loop.set_exception_handler(connection.AcceptTrouble(log))
            running.write(config.homes.state, here)
            gc.collect()
            gc.freeze()  # modules and routes stay: collections look at what requests left, soon
            loop.run_in_executor(None, _give_back, config)
            notifier.tell(notify.READY, f"STATUS=listens on {here.address}")
            places = (None if port is None else here.url, server.socket)
            log.info(
                "emberd %s listens on %s, default model %s",
                __version__, " and ".join(filter(None, places)), config.settings.default,
            )  # fmt: skip

    settings: dict[str, Any] = {
        "lifespan": "on",
        "http": connection.Connection,
        "backlog": connection.BACKLOG,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": SHUTDOWN_GRACE_S,
    }
    try:
        Server(uvicorn.Config(app, **settings)).run(sockets=listeners)
    except OSError as error:
        raise _state_unwritable(config, error) from None
    finally:
        sockets.remove(files)
        running.remove(config.homes.state)
    log.info("emberd has ended")
