"""`emberd list` and `emberd pull`: the registry, and the files behind it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.registry.lock import LockFile
    from emberd.registry.spec import ModelSpec


def list_models(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the models of the registry."""
    from emberd.registry.local import find_local
    from emberd.registry.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    default = config.catalog.get(config.settings.default)
    lock = LockFile(config.homes.state).read()
    rows: list[dict[str, Any]] = []
    for spec in config.catalog:
        entry = lock.get(spec.name)
        local = any(find_local(source, config.homes.hub) for source in spec.sources)
        rows.append(
            {
                "name": spec.name,
                "default": spec is default,
                "dimensions": spec.dimensions,
                "pooling": spec.pooling,
                "precision": spec.precision,
                "max_tokens": spec.max_tokens,
                "pulled": local,
                "fingerprint": entry.fingerprint if entry else None,
                "sources": [str(source) for source in spec.sources],
                "aliases": list(spec.aliases),
            }
        )
    if as_json:
        typer.echo(json.dumps({"models": rows}))
    else:
        from emberd.cli import render

        render.show(render.model_table(rows))


def pull(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Model names or aliases.")],
    as_json: AsJson = False,
) -> None:
    """Download models, so that their first use needs no network; fetches only what is missing."""
    from emberd.registry.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    specs = [config.catalog.get(name) for name in names]
    lock = LockFile(config.homes.state)
    rows = [_pull_one(spec, config, lock, quiet=as_json) for spec in specs]
    if as_json:
        typer.echo(json.dumps({"models": rows}))


def _pull_one(
    spec: "ModelSpec", config: "Config", lock: "LockFile", *, quiet: bool
) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from emberd.worker import loading

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet, transient=True) as bars:
        bar = bars.add_task(spec.name, total=None, visible=False)

        def report(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total, visible=True)

        found = loading.find(spec, config.homes.hub, lock.read().get(spec.name), report)
    lock.put(spec.name, found.entry)
    if not quiet:
        done = "pulled from" if found.downloaded else "already here, from"
        typer.echo(f"{spec.name}: {done} {found.entry.source}\n  {found.folder}")
    return {
        "name": spec.name,
        "source": found.entry.source,
        "folder": found.entry.folder,
        "downloaded": found.downloaded,
        "fingerprint": found.entry.fingerprint,
    }
