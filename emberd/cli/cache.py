"""`emberd cache`: the vectors that are kept on disk, how often they help, and deleting them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from emberd.cli.context import AsJson, Root
from emberd.units import format_size

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.registry.spec import ModelSpec
    from emberd.spaces.lock import LockEntry

app = typer.Typer(help="Show or clear the vectors that are kept on disk.")


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show what is kept on disk, and how often it was found there.

    `cache.vectors` in the configuration says how much may be kept; by default nothing is.
    """
    if ctx.invoked_subcommand:
        return
    from emberd.cache.commands import look
    from emberd.cli.render import cache_table
    from emberd.cli.render import show as show_table

    root: Root = ctx.obj
    config = root.load()
    file, most_bytes = config.homes.vectors, config.settings.cache.vectors
    seen = look(file)
    if as_json:
        held = [asdict(each) for each in seen.held]
        said = {"file": str(file), "size_bytes": seen.size_bytes, "most_bytes": most_bytes}
        typer.echo(json.dumps(said | {"entries": seen.entries, "spaces": held}))
        return
    limit = f"of {format_size(most_bytes)}" if most_bytes else "(off: nothing more is kept)"
    typer.echo(f"{file}: {seen.entries:,} vectors, {format_size(seen.size_bytes)} {limit}.")
    if seen.held:
        show_table(cache_table(seen.held))
    elif not most_bytes:
        typer.echo("To keep vectors on disk, set `cache.vectors`, for example to 1GiB.")


@app.command()
def clear(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Delete all vectors that are kept on disk. A running server goes on, and keeps new ones."""
    from emberd.cache.commands import clear as clear_file

    root: Root = ctx.obj
    freed_bytes = clear_file(root.load().homes.vectors)
    if as_json:
        typer.echo(json.dumps({"freed_bytes": freed_bytes}))
    else:
        typer.echo(f"Freed {format_size(freed_bytes)} of disk space.")


def forget_vectors(
    config: "Config", removed: "Iterable[ModelSpec]", known: "Mapping[str, LockEntry]"
) -> int:
    """Delete the vectors of models that were removed, unless another model has the same space.

    `known` is what was known of all models before. Returns how many there were.

    Raises:
        RequestError: the file cannot be used.
    """
    from emberd.cache.commands import forget

    names = {spec.name for spec in removed}
    gone = {known[name].now.fingerprint for name in names if name in known}
    left = {entry.now.fingerprint for name, entry in known.items() if name not in names}
    return forget(config.homes.vectors, [each for each in gone - left if each])
