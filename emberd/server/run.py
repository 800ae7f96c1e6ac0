"""Run the server of this home until a signal: claim the home, bind, announce, answer, drain.

Only this file runs uvicorn's server.
"""

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from emberd import __version__, logs, running
from emberd.api.access import BearerTokens
from emberd.api.app import App, create_app
from emberd.config.environment import take_notify_socket
from emberd.errors import ConfigError, PortTakenError
from emberd.pool.preparing import delete_unused
from emberd.running import Running
from emberd.server import limits, notify, sockets
from emberd.server.connection import Connection
from emberd.server.timeouts import Timeouts

if TYPE_CHECKING:
    from emberd.config.live import LiveConfig
    from emberd.config.load import Config
    from emberd.config.settings import LogSettings

DRAIN_S = 8  # for requests in flight; those not answered by then get a 503
SHUTDOWN_GRACE_S = 10  # for connections that stay open even then

UVICORN: dict[str, Any] = {
    "lifespan": "on",
    "http": Connection,
    "backlog": limits.ACCEPTED_AT_ONCE,
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "date_header": False,
    "proxy_headers": False,  # nothing here asks for the client's address
    "timeout_keep_alive": 75,
    "timeout_graceful_shutdown": SHUTDOWN_GRACE_S,
}

log = logging.getLogger("emberd")


def serve(live: "LiveConfig", timeouts: Timeouts | None = None) -> str | None:
    """Run until SIGINT or SIGTERM. Tests pass shorter `timeouts`.

    Returns:
        The address of the server that already runs where this one should; then nothing is done.

    Raises:
        ConfigError: a setting has to be corrected first.
        PortTakenError: the address is taken, or this home's server runs at another one.
    """
    config = live.config
    with _writing_state(config):
        claimed = running.claim(config.homes.state)
    if claimed is None:
        return _already_runs(config)
    _set_up_logs(config.settings.log)
    notifier = notify.Notifier(take_notify_socket())
    settings = config.settings.server
    tokens = BearerTokens(config.token, Path(settings.token_file) if settings.token_file else None)
    listeners = sockets.listen(settings, has_token=tokens.required)
    files = sockets.sockets_of(listeners)
    limits.raise_file_limit()
    Connection.most = limits.most_connections()
    Connection.timeouts = timeouts or Timeouts()
    here = Running(
        os.getpid(),
        settings.host,
        None if settings.port is None else listeners[0].getsockname()[1],
        __version__,
        settings.socket,
        secrets.token_hex(8),
    )
    app = create_app(live, tokens, here)
    try:
        with _writing_state(config):
            Server(app, live, here, notifier).run(sockets=listeners)
    finally:
        sockets.remove(files)
        running.remove(config.homes.state)
    log.info("emberd has stopped")
    return None


class Server(uvicorn.Server):
    """uvicorn's, which announces itself, drains the pool, and returns instead of dying by signal.

    Args:
        app: what answers.
        live: the configuration in force, read again at SIGHUP.
        here: where this server listens, for other processes to find it.
        notifier: tells the service manager.
    """

    def __init__(
        self, app: App, live: "LiveConfig", here: Running, notifier: notify.Notifier
    ) -> None:
        super().__init__(uvicorn.Config(app.answer, **UVICORN))
        self._pool = app.pool
        self._watchers = app.watchers
        self._page = app.page
        self._live = live
        self._here = here
        self._notifier = notifier
        self._hurry = asyncio.Event()  # a second signal has come
        self._reloads: set[asyncio.Task[None]] = set()  # the loop keeps only weak references

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals; uvicorn's own would raise them again at the end."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; the second time, without grace."""
        if self.should_exit:
            self._hurry.set()  # the signal itself has woken the loop
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Record where it listens, accept connections, then announce it."""
        config = self._live.config
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up, _has_terminal())
        loop.set_exception_handler(limits.EventLoopErrorLog(log))
        # Before the first connection: where it cannot be recorded, no server is taken for ready.
        # After the handler: whoever finds the record may send SIGHUP, which would end this process.
        running.write(config.homes.state, self._here)
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # modules and routes stay: collections look only at what requests left
        loop.run_in_executor(None, delete_unused, config)
        self._notifier.tell(notify.READY, f"STATUS=listening on {self._here.address}")
        log.info(
            "emberd %s is listening on %s, default model %s",
            __version__, " and ".join(self._here.addresses), config.settings.default,
        )  # fmt: skip

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests in progress, and take no new ones."""
        config = self._live.config.settings.server
        self._notifier.tell(notify.STOPPING, "STATUS=finishing the requests in progress")
        await self._leave(config.grace)
        self._watchers.close()
        ending = asyncio.gather(self._pool.drain(DRAIN_S), self._page.close())
        await super().shutdown(sockets)
        await ending

    async def _leave(self, grace_s: float) -> None:
        """Have `/ready` say 503, and answer as before meanwhile; another signal ends the wait."""
        self._pool.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._hurry.wait()

    def _hang_up(self, had_terminal: bool) -> None:
        """Reload the configuration; end instead if the terminal it was started in is gone."""
        if had_terminal and not _has_terminal():
            self.handle_exit(signal.SIGHUP, None)
            return
        task = asyncio.create_task(self._live.try_reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


def _already_runs(config: "Config") -> str:
    """Return where this home's server runs. Raises PortTakenError if it is somewhere else."""
    noted = running.read(config.homes.state)
    where = noted.address if noted else "an address that it has not recorded yet"
    server = config.settings.server
    if noted and (noted.host, noted.port) == (server.host, server.port):
        return where
    raise PortTakenError(
        f"emberd is already running at {where}, with the state folder {config.homes.state}.",
        hint="Stop that server, or give this one its own EMBERD_HOME.",
    )


@contextmanager
def _writing_state(config: "Config") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The state folder {config.homes.state} cannot be written: {error.strerror}.",
            hint="Fix its permissions, or set EMBERD_HOME to a folder that you can write to.",
        ) from None


def _set_up_logs(to: "LogSettings") -> None:
    try:
        logs.set_up(to.level, to.format, to.file, to.max_bytes, to.backups)
    except OSError as error:
        raise ConfigError(
            f"log.file: {to.file} cannot be written: {error.strerror}.",
            hint="Choose a file in an existing folder that you can write to.",
        ) from None


def _has_terminal() -> bool:
    """Whether this process has a terminal; it loses it when the window is closed."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) >= 0
    except (OSError, ValueError):
        return False
