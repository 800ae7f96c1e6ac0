"""`emberd list`, `pull` and `remove`: the registry, and the files behind it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, complete_model, resumable
from emberd.errors import ConfigError, EmberdError, RequestError, SourceError
from emberd.installing import pip
from emberd.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from emberd.config.load import Config
    from emberd.models.hub import Report
    from emberd.registry.spec import ModelSpec
    from emberd.spaces.lock import LockEntry, LockFile

NOT_LOADED = ("cold", "failed")


def list_models(
    ctx: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the disk that each model takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show all models, and which are on this machine.

    "tested" says how far a model was compared with other programs: "reference" its own vectors,
    "architecture" others of its kind, "no" neither.
    """
    from emberd.models import compiled
    from emberd.models.availability import find_here
    from emberd.spaces.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    default = config.catalog.get(config.settings.default)
    lock = LockFile(config.homes.state).read()
    rows: list[dict[str, Any]] = []
    for spec in config.catalog:
        entry = lock.get(spec.name)
        here = find_here(spec, config.homes.hub, entry)
        rows.append(
            {
                "name": spec.name,
                "default": spec is default,
                "dimensions": spec.dimensions,
                "pooling": spec.pooling,
                "precision": spec.precision,
                "max_tokens": spec.max_tokens,
                "pulled": here is not None,
                "files_bytes": compiled.size_of(here.folder) if here else 0,
                "compiled_bytes": compiled.size_of(
                    *compiled.folders(config.homes.cache, spec, entry)
                ),
                "fingerprint": entry.now.fingerprint if entry else None,
                "architecture": spec.architecture,
                "licence": spec.licence,
                "tested": spec.tested,
                "sources": [str(source) for source in spec.sources],
                "aliases": list(spec.aliases),
            }
        )
    models = [(spec, lock.get(spec.name)) for spec in config.catalog]
    unused_bytes = compiled.size_of(*compiled.unused(config.homes.cache, models))
    if as_json:
        typer.echo(json.dumps({"models": rows, "unused_bytes": unused_bytes}))
        return
    from emberd.cli import render

    render.show(render.model_table(rows, with_disk=verbose))
    if verbose and unused_bytes:
        typer.echo(
            f"{format_size(unused_bytes)} of compiled models are used by none any more;"
            " the server gives them back when it starts, `emberd remove` at once."
        )


def pull(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Names or aliases, as `emberd list` shows them.",
            autocompletion=complete_model,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of the list.")] = False,
    revision: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Fetch this branch, tag or commit of the Hub."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Fetch a newer commit, where the Hub has one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download models, and check those that are here already.

    A model that is not pulled is downloaded at its first request. Stopped at any moment, the same
    command goes on where it was.
    """
    root: Root = ctx.obj
    config = root.load()
    wanted = [spec.name for spec in config.catalog] if every else list(dict.fromkeys(names or []))
    if not wanted:
        raise RequestError("No model was named.", hint="Name some, or write --all.")
    if revision and len(wanted) > 1:
        raise RequestError(
            "--revision goes with one model.", hint="Each repository has revisions of its own."
        )
    rows: list[dict[str, Any]] = []
    failures: list[EmberdError] = []
    for name in wanted:
        try:
            with resumable(), _progress(name, quiet=as_json) as report:
                rows.append(_pull(config, name, revision, update=update, report=report))
        except EmberdError as error:
            failures.append(error)
            rows.append({"name": name, "error": error.message, "hint": error.hint})
        else:
            if not as_json:
                typer.echo(_sentences(rows[-1]))
    if as_json:
        typer.echo(json.dumps({"models": rows}))
    if len(failures) == 1:
        raise failures[0]
    if failures:
        lines = [f"  {error.message} {error.hint or ''}".rstrip() for error in failures]
        raise SourceError("\n".join([f"{len(failures)} of {len(wanted)} models failed:", *lines]))


@contextmanager
def _progress(name: str, *, quiet: bool) -> "Iterator[Report]":
    """Draw one bar, from the first bytes on: how much, how fast, how long still."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as bars:
        bar = bars.add_task(name, total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


def _pull(
    config: "Config", name: str, revision: str | None, *, update: bool, report: "Report"
) -> dict[str, Any]:
    from emberd.backends import plugins
    from emberd.hashing import list_files
    from emberd.models import sources
    from emberd.spaces.lock import LockFile

    spec = config.catalog.get(name)
    asked = sources.at_revision(spec, revision) if revision else spec
    files = plugins.load(plugins.resolve(spec.backend)).files
    before = LockFile(config.homes.state).read().get(spec.name)
    pulled = sources.pull(
        asked,
        hub=config.homes.hub,
        files=files,
        before=before.now if before else None,
        update=update,
        report=report,
    )
    source, folder, checked = pulled.located.source, pulled.located.folder, pulled.checked
    row: dict[str, Any] = {
        "name": spec.name,
        "status": pulled.status,
        "source": str(source),
        "folder": str(folder),
        "downloaded": pulled.located.downloaded,
        "size_bytes": sum((folder / file).stat().st_size for file in list_files(folder, files)),
        "checked_by": checked.by,
        "offline": checked.offline,
        "damaged": list(checked.damaged),
        "newer": checked.newer,
        "fingerprint": None,
        "notes": [],
    }
    if checked.newer and pulled.status != "updated":
        row["notes"].append(
            f"The Hub has a newer commit, {checked.newer}: `emberd pull {spec.name} --update`"
            " takes it (its vectors may be of another space)."
        )
    if source in spec.sources:
        row["fingerprint"] = _remember(config, spec, before, row["notes"])
    else:
        row["notes"].append(
            f"It is not used yet: write `revision: {revision}` beside `hf: {source.hf}` in"
            f" models.{spec.name}.sources of {config.homes.config}."
        )
    return row


def _remember(
    config: "Config", spec: "ModelSpec", before: "LockEntry | None", notes: list[str]
) -> str | None:
    """Note a model that is new to the lock; how one that changed is judged when it is loaded."""
    from emberd.spaces.lock import LockFile
    from emberd.worker import loading

    entry = loading.find(spec, config.homes.hub, before, lambda _done, _total: None).entry
    if before is None:
        try:
            LockFile(config.homes.state).put(spec.name, entry)
        except OSError as error:
            raise ConfigError(
                f"The folder {config.homes.state} cannot be written: {error.strerror}."
            ) from None
    elif before.now.fingerprint != entry.fingerprint:
        notes.append(
            f"Its fingerprint was {before.now.fingerprint} and is {entry.fingerprint}:"
            " the next load compares the vectors."
        )
    return entry.fingerprint


def _sentences(row: dict[str, Any]) -> str:
    """Say what came of one model: where from, how big, what was checked."""
    known = {
        "hub": ", checked against the Hub",
        "kept": "; hashes as at the last pull",
        None: "; nothing is known to compare its hashes with",
    }
    done = {
        "pulled": "pulled from",
        "updated": "updated from",
        "repaired": f"{', '.join(row['damaged'])} was damaged or missing and is here again from",
        "changed": f"here, and {', '.join(row['damaged'])} changed since its last use:",
        "here": f"here{known[row['checked_by']]}"
        + (f" ({row['offline']}):" if row["offline"] else ":"),
    }
    size = format_size(row["size_bytes"])
    first = f"{row['name']}: {done[row['status']]} {row['source']}, {size}"
    return "\n  ".join([first, row["folder"], *row["notes"]])


def remove(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Names or aliases, as `emberd list` shows them.",
            autocompletion=complete_model,
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Also remove files that other models use.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete downloaded models to free disk space.

    What emberd has compiled of them goes, too. Your own folders and installed packages stay.
    """
    from emberd.spaces.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    specs = list({spec.name: spec for spec in map(config.catalog.get, names)}.values())
    lock = LockFile(config.homes.state)
    users = _other_users(config, lock, specs)
    kept = {} if yes else {hub_id: others for hub_id, others in users.items() if others}
    leaving = [hub_id for hub_id in users if hub_id not in kept]
    losing = sorted({other for hub_id in leaving for other in users[hub_id]})
    _require_unloaded(config, {*losing, *(spec.name for spec in specs)})
    copies = _compiled_for_none_else(config, lock, specs)
    removed = _delete(config, lock, specs, leaving)
    compiled_bytes = _delete_compiled(config, lock, copies)
    if kept and not removed and not compiled_bytes:
        raise RequestError(
            f"Nothing was removed: {_shared(kept)}.",
            hint="Add --yes to remove the files for all of them.",
        )
    notes = [f"{hub_id}: removed, {format_size(size)}." for hub_id, size in removed.items()]
    if not removed and not kept:
        notes.append(f"Nothing of {', '.join(spec.name for spec in specs)} is in the Hub's cache.")
    if compiled_bytes:
        notes.append(f"Compiled copies that no model uses: removed, {format_size(compiled_bytes)}.")
    if kept:
        notes.append(f"{_shared(kept)}: they stay (--yes removes them).")
    if losing:
        notes.append(f"The files of {', '.join(losing)} are gone, too.")
    notes += _what_stays(specs, config)
    freed_bytes = sum(removed.values()) + compiled_bytes
    if as_json:
        names = [spec.name for spec in specs]
        said: dict[str, Any] = {"models": names, "freed_bytes": freed_bytes, "removed": removed}
        said |= {"compiled_bytes": compiled_bytes, "kept": kept}
        typer.echo(json.dumps({**said, "notes": notes}))
    else:
        typer.echo("\n".join([*notes, f"{format_size(freed_bytes)} of disk came back."]))


def _delete(
    config: "Config", lock: "LockFile", specs: list["ModelSpec"], hub_ids: list[str]
) -> dict[str, int]:
    """Delete repositories, forget the models that are gone; return the bytes of each."""
    from emberd.models.local import remove_repository

    try:
        freed = {hub_id: remove_repository(hub_id, config.homes.hub) for hub_id in hub_ids}
        for spec in specs:
            entry = lock.read().get(spec.name)
            if entry and not entry.is_here:
                lock.remove(spec.name)
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be removed: {error.strerror}.") from None
    return {hub_id: size for hub_id, size in freed.items() if size}


def _compiled_for_none_else(
    config: "Config", lock: "LockFile", specs: list["ModelSpec"]
) -> list["Path"]:
    """Return what is kept compiled of these models, and of none else that is here."""
    from emberd.models import compiled

    entries = lock.read()

    def folders(wanted: "Iterable[ModelSpec]") -> set["Path"]:
        cache = config.homes.cache
        return {f for spec in wanted for f in compiled.folders(cache, spec, entries.get(spec.name))}

    return sorted(folders(specs) - folders(spec for spec in config.catalog if spec not in specs))


def _delete_compiled(config: "Config", lock: "LockFile", copies: list["Path"]) -> int:
    """Delete these copies, and those that no model leads to any more; return the bytes."""
    from emberd.models import compiled

    entries = lock.read()
    models = [(spec, entries.get(spec.name)) for spec in config.catalog]
    try:
        return compiled.give_back([*copies, *compiled.unused(config.homes.cache, models)])
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be removed: {error.strerror}.") from None


def _other_users(
    config: "Config", lock: "LockFile", specs: list["ModelSpec"]
) -> dict[str, list[str]]:
    """Return the Hub repositories of the models, and which other models have their files there."""
    from emberd.models.availability import find_here

    users: dict[str, list[str]] = {hub_id: [] for spec in specs for hub_id in spec.hub_ids}
    for other in config.catalog:
        here = find_here(other, config.homes.hub, lock.read().get(other.name))
        if other not in specs and here and here.source.hf in users:
            users[here.source.hf].append(other.name)
    return users


def _require_unloaded(config: "Config", names: set[str]) -> None:
    from emberd.client import clients

    server = clients.find(config)
    rows = server.models() if server else []
    alive = [row["name"] for row in rows if row["state"] not in NOT_LOADED and row["name"] in names]
    if alive:
        raise RequestError(
            f"{', '.join(alive)} is loaded in the server at {server.address if server else ''}.",
            hint=f"Run `emberd unload {alive[0]}` first.",
        )


def _shared(kept: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{hub_id} is used by {', '.join(users)}, too" for hub_id, users in kept.items()
    )


def _what_stays(specs: list["ModelSpec"], config: "Config") -> list[str]:
    """Say which files of these models are not the Hub's, and whose they are."""
    from emberd.models.local import find_local

    own = dict.fromkeys(
        source
        for spec in specs
        for source in spec.sources
        if not source.hf and find_local(source, config.homes.hub)
    )
    return [
        f"The folder {source.path} is your own and stays."
        if source.path
        else f"The package {source.package} stays;"
        f" `{pip('uninstall', source.package or '')}` removes it."
        for source in own
    ]
