"""`emberd bench`: how fast a model is on this machine, and how much memory it takes."""

import json
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from emberd.cli.context import AsJson, ModelName, Root
from emberd.cli.models import faster_notes

if TYPE_CHECKING:
    from emberd.bench.stages import Pace, Results


def bench(
    ctx: typer.Context,
    model: ModelName = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Measure the server at this URL; this unloads its model."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, max=60.0, help="How long each stage measures."),
    ] = 4.0,
    as_json: AsJson = False,
) -> None:
    """Measure how fast a model is on this machine, in a minute.

    By default it starts its own server on a free port, and leaves a running one alone.
    """
    from emberd.bench.stages import Pace

    signal.signal(signal.SIGTERM, _end)
    pace = Pace(stage_s=seconds)
    found = _against(against, model, pace) if against else _own(ctx.obj, model, pace)
    notes = [] if against else _notes(ctx.obj, model)
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "notes": notes}))
        return
    from emberd.cli import render

    render.show_bench(found.to_dict())
    for note in notes:
        typer.echo(note)


def _notes(root: Root, model: str | None) -> list[str]:
    config = root.read()
    return faster_notes([config.catalog.get(model or config.settings.default)])


def _end(number: int, _frame: object) -> None:
    """Exit as after an exception, so that the server that was started ends too."""
    sys.exit(128 + number)


def _own(root: Root, model: str | None, pace: "Pace") -> "Results":
    from emberd.bench.own_server import own_server
    from emberd.bench.stages import bench as run

    config = root.load()
    named = config.catalog.find(model or config.settings.default, kinds=("embed",))
    with own_server(config, named.spec) as own:
        server = replace(own.server, model=named.label)
        return run(server, own.pid, _say, start_s=own.start_s, pace=pace)


def _against(url: str, model: str | None, pace: "Pace") -> "Results":
    from emberd.bench.stages import bench as run
    from emberd.bench.stages import detect, local_pid

    server = detect(url, model)
    return run(server, local_pid(server), _say, pace=pace)


def _say(what: str) -> None:
    """Show progress on stderr, only at a terminal."""
    if sys.stderr.isatty():
        typer.secho(f"  measuring {what} ...", dim=True, err=True)
