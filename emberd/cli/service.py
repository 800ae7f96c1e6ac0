"""`emberd service`: the server as a service under launchd or systemd."""

import json
import shlex
import sys
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, print_error, print_warning
from emberd.cli.prepare import prepare_usual
from emberd.errors import ConfigError, PortTakenError, ServiceError

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.service.unit import Unit

app = typer.Typer(no_args_is_help=True, help="Run the server at every login, as a service.")


@app.command()
def install(
    ctx: typer.Context,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take over from the old MLX server on that port.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit and do nothing.")
    ] = False,
) -> None:
    """Start the server now and at every login.

    It runs as this user, under launchd or systemd. If it does not become ready, the installation
    is undone.
    """
    from emberd.service import install as service
    from emberd.service import previous
    from emberd.service import server as managed

    root: Root = ctx.obj
    config = root.load()
    manager = service.find_manager()
    unit = _unit(root, config)
    if dry_run:
        typer.secho(f"# {manager.file}", dim=True, err=True)
        typer.echo(manager.render(unit).decode(), nl=False)
        return
    holder = managed.holder(config, manager)
    server = config.settings.server
    if holder and server.port is None:
        raise PortTakenError(
            f"The socket {server.socket} is held by {holder}.",
            hint="Stop that process, or set another `server.socket`.",
        )
    if holder and not replace:
        raise PortTakenError(
            f"Port {server.port} is held by {holder}.",
            hint="If that is the server emberd replaces, add `--replace`. Otherwise stop that"
            " process, or set another `server.port`.",
        )
    old = previous.find(server.port or 0, holder) if replace else []
    prepare_usual(config)
    for sentence in service.install(manager, unit, lambda: managed.is_ready(config), old):
        typer.echo(sentence)
    where = str(managed.address_of(config))
    typer.echo(f"emberd runs at {where} as a service of {manager.name} ({manager.file}).")
    if hint := manager.logout_hint():
        typer.echo(hint)


@app.command()
def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Say whether the service is running and ready.

    Exit code 1: it is not.
    """
    from emberd.config.paths import find_homes
    from emberd.service import logs as written
    from emberd.service import server as managed
    from emberd.service.install import find_manager

    root: Root = ctx.obj
    config = _load_if_possible(root)
    manager = find_manager()
    row: dict[str, Any]
    try:
        now = manager.status()
    except ServiceError as error:
        if as_json:
            row = {"state": "unknown", "ready": False, "error": error.message, "hint": error.hint}
            typer.echo(json.dumps({"manager": manager.name, "file": str(manager.file), **row}))
        raise
    state = find_homes(config=root.config_file).state
    ready = now.state == "running" and config is not None and managed.is_ready(config)
    row = {
        "manager": manager.name,
        "file": str(manager.file),
        "state": now.state,
        "ready": ready,
        "pid": now.pid,
        "last_exit": now.last_exit,
        "url": str(managed.address_of(config)) if config else None,
        "logs": [str(file) for file in written.files(state, config)],
    }
    if as_json:
        typer.echo(json.dumps(row))
    elif now.state == "not installed":
        typer.echo("The service is not installed; run `emberd service install`.")
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
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int,
        typer.Option("--lines", "-n", min=0, metavar="N", help="How many lines to print."),
    ] = 50,
) -> None:
    """Print the last lines of the service's log."""
    from emberd.config.paths import find_homes
    from emberd.service import logs as written
    from emberd.service.install import find_manager

    root: Root = ctx.obj
    config = _load_if_possible(root)
    manager = find_manager()
    has_journal = manager.name == "systemd"
    files = written.files(find_homes(config=root.config_file).state, config)
    full = [file for file in files if file.exists() and file.stat().st_size]
    journal = _journal(max(lines, 1)) if has_journal else ""
    if not full and not journal:
        manager.status()  # if the manager does not answer, this raises with the reason
        raise ServiceError(
            "The service has not written anything yet.", hint="See `emberd service status`."
        )
    if follow:
        with written.following_journal(lines) if has_journal else nullcontext():
            _follow({file: _tail(file, lines) if file in full else 0 for file in files})
        return
    named = len(full) + bool(journal) > 1
    if journal and lines:
        typer.echo(f"==> journal <==\n{journal}" if named else journal)
    for file in full:
        if named:
            typer.echo(f"==> {file} <==")
        _tail(file, lines)


def _journal(lines: int) -> str:
    """Return the last lines of systemd's journal; if it cannot be read, print why."""
    from emberd.service import logs as written

    try:
        text, complaint = written.journal(lines)
    except ServiceError as error:
        print_error(error)
        return ""
    if complaint:
        print_warning(f"the journal: {complaint}")
    return text


def _tail(file: Path, lines: int) -> int:
    """Print the last lines; return the position after them."""
    from emberd.service import logs as written

    content, position = written.tail(file, lines)
    _write(content)
    return position


def _follow(positions: dict[Path, int]) -> None:
    """Print what is added to files after these positions, until Ctrl-C."""
    from emberd.service import logs as written

    with suppress(KeyboardInterrupt), closing(written.follow(positions)) as following:
        for added in following:
            _write(added)


def _write(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


@app.command()
def restart(ctx: typer.Context) -> None:
    """Restart the service."""
    from emberd.service import install as service
    from emberd.service import server as managed

    root: Root = ctx.obj
    config = root.load()
    service.restart(service.find_manager(), lambda: managed.is_ready(config))
    typer.echo(f"emberd is running again at {managed.address_of(config)!s}.")


@app.command()
def uninstall(ctx: typer.Context) -> None:
    """Stop the service, and no longer start it at login.

    Models, configuration and logs are kept.
    """
    from emberd.service import install as service
    from emberd.service import previous

    del ctx  # a broken configuration must not get in the way
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
    """Return the configuration; print what is wrong with a broken one, and go on without it."""
    from emberd.config.paths import find_homes

    find_homes(config=root.config_file)  # without these folders there is nothing to look for
    try:
        return root.load()
    except ConfigError as error:
        print_error(error)
        return None


def _unit(root: Root, config: "Config") -> "Unit":
    from emberd.service import server as managed

    unit, left_out = managed.unit_of(config, names_config=root.config_file is not None)
    for name in left_out:
        print_warning(
            f"${name} holds a secret, so it is not written into the unit; keep it in a file"
            " (for the Hub: `hf auth login`)."
        )
    return unit
