"""`emberd service`: the server as a service of this machine, by launchd or systemd."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from emberd.cli.context import AsJson, Root, print_error, print_warning
from emberd.errors import ConfigError, PortTakenError, ServiceError

if TYPE_CHECKING:
    from emberd.client.address import Address
    from emberd.config.load import Config
    from emberd.service.port import Holder
    from emberd.service.unit import Manager, Unit

LOG, STDERR_LOG = "emberd.log", "service.stderr.log"  # in the state folder
READY_TIMEOUT_S = 2.0
FOLLOW_S = 0.2

app = typer.Typer(no_args_is_help=True, help="Run the server at every login, as a service.")


@app.command()
def install(
    ctx: typer.Context,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take over from the old MLX server on that port.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the unit; do nothing.")] = False,
) -> None:
    """Start the server now and at every login.

    By launchd or systemd, as this user. Undone when it does not become ready.
    """
    from emberd.service import install as service
    from emberd.service import previous

    root: Root = ctx.obj
    config = root.load()
    manager = service.find_manager()
    unit = _unit(root, config)
    if dry_run:
        typer.secho(f"# {manager.file}", dim=True, err=True)
        typer.echo(manager.render(unit).decode(), nl=False)
        return
    holder = _holder(config, manager)
    server = config.settings.server
    if holder and server.port is None:
        raise PortTakenError(
            f"The socket {server.socket} is held by {holder}.",
            hint="End that process, or set another `server.socket`.",
        )
    if holder and not replace:
        raise PortTakenError(
            f"Port {server.port} is held by {holder}.",
            hint="If that is the server emberd replaces, add `--replace`; else end that process,"
            " or set another `server.port`.",
        )
    old = previous.find(server.port or 0, holder) if replace else []
    for sentence in service.install(manager, unit, lambda: is_ready(config), old):
        typer.echo(sentence)
    where = str(_address(config))
    typer.echo(f"emberd runs at {where} as a service of {manager.name} ({manager.file}).")
    if hint := manager.logout_hint():
        typer.echo(hint)


@app.command()
def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Say whether the service runs and is ready.

    Exit code 1: it is not.
    """
    from emberd.service.install import find_manager

    root: Root = ctx.obj
    config = _load_if_possible(root)
    manager = find_manager()
    try:
        now = manager.status()
    except ServiceError as error:
        if as_json:
            told = {"state": "unknown", "ready": False, "error": error.message, "hint": error.hint}
            typer.echo(json.dumps({"manager": manager.name, "file": str(manager.file), **told}))
        raise
    ready = now.state == "running" and config is not None and is_ready(config)
    row: dict[str, Any] = {
        "manager": manager.name,
        "file": str(manager.file),
        "state": now.state,
        "ready": ready,
        "pid": now.pid,
        "last_exit": now.last_exit,
        "url": str(_address(config)) if config else None,
        "logs": [str(file) for file in _logs(root, config)],
    }
    if as_json:
        typer.echo(json.dumps(row))
    elif now.state == "not installed":
        typer.echo("The service is not installed; `emberd service install` does it.")
    else:
        process = f" (pid {now.pid})" if now.pid else ""
        answers = f"and {'ready' if ready else 'not ready'} at {row['url']}" if config else ""
        typer.echo(f"The service is {now.state}{process} {answers}".rstrip() + ".")
        if now.state == "failed" and now.last_exit is not None:
            typer.echo(f"Its last process ended with exit code {now.last_exit}.")
        typer.echo(f"Unit: {manager.file}")
    if not ready:
        raise typer.Exit(1)


@app.command()
def logs(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="N", help="How many of the last lines.")
    ] = 50,
) -> None:
    """Print what the service wrote last."""
    from emberd.service.install import find_manager

    root: Root = ctx.obj
    config = _load_if_possible(root)
    manager = find_manager()
    files = _logs(root, config)
    written = [file for file in files if file.exists() and file.stat().st_size]
    journal = _journal(max(lines, 1)) if manager.name == "systemd" else ""
    if not written and not journal:
        manager.status()  # where it cannot be asked, it says why
        raise ServiceError(
            "The service has written nothing yet.", hint="See `emberd service status`."
        )
    if follow:
        with _following_journal(manager, lines):
            _follow({file: _tail(file, lines) if file in written else 0 for file in files})
        return
    named = len(written) + bool(journal) > 1
    if journal and lines:
        typer.echo(f"==> journal <==\n{journal}" if named else journal)
    for file in written:
        if named:
            typer.echo(f"==> {file} <==")
        _tail(file, lines)


@app.command()
def restart(ctx: typer.Context) -> None:
    """Restart the service."""
    from emberd.service import install as service

    root: Root = ctx.obj
    config = root.load()
    service.restart(service.find_manager(), lambda: is_ready(config))
    typer.echo(f"emberd runs again at {_address(config)!s}.")


@app.command()
def uninstall(ctx: typer.Context) -> None:
    """Stop the service, and start it at logins no more.

    Models, configuration and logs are kept.
    """
    from emberd.service import install as service
    from emberd.service import previous

    del ctx  # a broken configuration does not keep it here
    manager = service.find_manager()
    if not service.uninstall(manager):
        typer.echo("The service is not installed.")
        return
    typer.echo(f"Removed {manager.file}. Models, configuration and logs are kept.")
    if agent := previous.disabled_agent():
        typer.echo(
            f"To go back to the old server: `launchctl enable {agent.target}` and"
            f" `launchctl bootstrap {agent.domain} {shlex.quote(str(agent.file))}`."
        )


def _load_if_possible(root: Root) -> "Config | None":
    """Return the configuration; a broken one, which is what one may look for, is only told."""
    from emberd.config.paths import find_homes

    find_homes(config=root.config_file)  # without which there is nothing to look for
    try:
        return root.load()
    except ConfigError as error:
        print_error(error)
        return None


def is_ready(config: "Config") -> bool:
    """Say whether the server answers `GET /ready` with 200."""
    from emberd.client import health

    return health.is_ready(_address(config), timeout_s=READY_TIMEOUT_S)


def _address(config: "Config") -> "Address":
    """Return where the service is asked: at its port, without one by its socket."""
    from emberd import running
    from emberd.client.address import Address

    server = config.settings.server
    url = running.url_of(server.host, server.port)
    return Address(url, server.socket if server.port is None else None)


def _unit(root: Root, config: "Config") -> "Unit":
    """Return the server as the manager shall run it: this very Python, this configuration."""
    from emberd.config.surroundings import for_a_service
    from emberd.service.unit import Unit

    server = config.settings.server
    if server.port == 0 or (server.port is None and not server.socket):
        raise ConfigError(
            f"{config.origins['server.port']}: server.port: a service needs a port of its own,"
            " or `off` and a `server.socket`.",
            hint="Set one; emberd's is 8767.",
        )
    environ, left_out = for_a_service()
    for name in left_out:
        print_warning(
            f"${name} holds a secret and is not written into the unit; keep it in a file"
            " (for the Hub: `hf auth login`)."
        )
    if root.config_file:
        environ["EMBERD_CONFIG"] = str(config.homes.config)
    if config.origins["log.file"] == "default":  # else it is the file's or already in `environ`
        environ["EMBERD_LOG_FILE"] = str(config.homes.state / LOG)
    return Unit(
        # -P: never import from the folder that the manager starts it in
        argv=(sys.executable, "-P", "-m", "emberd.cli.main", "serve"),
        environ=environ,
        stderr=config.homes.state / STDERR_LOG,
    )


def _log_file(config: "Config") -> Path | None:
    """Return the file that the server rotates by itself; a service has one, set or not."""
    if config.origins["log.file"] == "default":
        return config.homes.state / LOG
    return Path(config.settings.log.file) if config.settings.log.file else None


def _logs(root: Root, config: "Config | None") -> list[Path]:
    from emberd.config.paths import find_homes

    state = find_homes(config=root.config_file).state
    own = _log_file(config) if config else state / LOG
    return [file for file in (state / STDERR_LOG, own) if file]


def _holder(config: "Config", manager: "Manager") -> "Holder | None":
    """Return who stands in the way; our own service is about to make room."""
    from emberd.service.port import who_holds, who_holds_socket

    server = config.settings.server
    try:
        if server.port is None:
            where = str(server.socket)
            hint = "Choose a path in a folder of yours as `server.socket`."
            holder = who_holds_socket(where)
        else:
            where = f"{server.host}:{server.port}"
            hint = "Choose an address of this machine as `server.host`, and a port above 1023."
            holder = who_holds(server.host, server.port)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"emberd cannot listen on {where}: {error}.", hint=hint) from None
    return None if holder and holder.pid and holder.pid == manager.status().pid else holder


def _tail(file: Path, lines: int) -> int:
    """Print the last lines; return the position after them."""
    with file.open("rb") as content:
        for line in deque(content, maxlen=lines):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return content.tell()


def _journal(lines: int) -> str:
    """Return the last lines of systemd's journal; what keeps them from us is a warning."""
    from emberd.service import command, systemd

    try:
        done = command.run(*systemd.journal(lines=lines))
    except ServiceError as error:
        print_error(error)
        return ""
    if done.stderr:
        print_warning(f"the journal: {done.stderr}")
    return done.stdout


@contextmanager
def _following_journal(manager: "Manager", lines: int) -> Iterator[None]:
    """Have the last lines of systemd's journal, and what comes, printed meanwhile."""
    from emberd.service import systemd

    if manager.name != "systemd":
        yield
        return
    words = [*systemd.journal(lines=lines), "--follow"]
    try:
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)  # noqa: S603 - our own words
    except OSError:  # `_journal` said so
        yield
        return
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _follow(positions: dict[Path, int]) -> None:
    """Print what is added to files after these positions, until Ctrl-C."""
    following = [_Followed(file, position) for file, position in positions.items()]
    with suppress(KeyboardInterrupt):
        while True:
            for one in following:
                sys.stdout.buffer.write(one.added())
            sys.stdout.buffer.flush()
            time.sleep(FOLLOW_S)


class _Followed:
    """A log file that grows, is rotated, or is not there yet."""

    def __init__(self, file: Path, position: int) -> None:
        self._file = file
        self._stream: BinaryIO | None = None
        with suppress(FileNotFoundError):
            self._stream = file.open("rb")
            self._stream.seek(position)

    def added(self) -> bytes:
        """Return what was written since the last call, also after a rotation."""
        added = self._stream.read() if self._stream else b""
        with suppress(FileNotFoundError):  # not there yet, or between a rotation's two renames
            new = self._file.stat().st_ino
            if self._stream is None:
                self._stream = self._file.open("rb")
            elif new != os.fstat(self._stream.fileno()).st_ino:
                added += self._stream.read()
                self._stream.close()
                self._stream = self._file.open("rb")
        return added
