"""`emberd list`, `pull` and `remove`: models, and their files on this machine."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, complete_model, resumable
from emberd.cli.prepare import prepared_in, try_to_prepare
from emberd.cli.progress import AsLines, count_bytes, form_of, say_steps
from emberd.errors import EmberdError, RequestError, SourceError
from emberd.installing import pip
from emberd.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from emberd.config.load import Config
    from emberd.folder.pull import Pulled
    from emberd.models.hub import OnProgress
    from emberd.models.listing import ListedModel
    from emberd.pool.preparing import Prepared
    from emberd.registry.spec import ModelSpec, Source
    from emberd.spaces.lock import LockEntry

NOT_LOADED = ("cold", "failed")


def list_models(
    ctx: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show the disk space each takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show all models, and which are on this machine.

    A re-ranker is marked "(rerank)": it scores texts for a query, and has no dimensions.

    What the column "roles" has can follow the name, for clients that can send only a name:
    "bge-small:query". The column "tested" says what was compared with other programs: "reference"
    the model's own vectors, "architecture" those of a model of its kind, "no" neither.

    The column "runs on" has the backends of this machine that run it. "no: backend" means that the
    one its entry names is not installed, "no: architecture" that none here runs what it is, and
    "unknown" that neither its entry nor a folder says what it is. `emberd doctor` says more.
    """
    from emberd.models import listing
    from emberd.models.remove import Places
    from emberd.spaces.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    default = config.catalog.get(config.settings.default)
    lock = LockFile(config.homes.state)
    places = Places(hub=config.homes.hub, cache=config.homes.cache, lock=lock)
    rows = _with_backends(config, listing.list_models(config.catalog, default, places))
    unused_bytes = listing.unused_bytes(config.catalog, places)
    here = {row["name"] for row in rows if row["pulled"]}
    notes = faster_notes(spec for spec in config.catalog if spec.name in here)
    if as_json:
        typer.echo(json.dumps({"models": rows, "unused_bytes": unused_bytes, "notes": notes}))
        return
    from emberd.cli import render

    render.show(render.model_table(rows, with_disk=verbose))
    for alias, meant in config.settings.aliases.items():
        typer.echo(f"{alias} means {meant}.")
    if verbose and unused_bytes:
        typer.echo(
            f"Compiled copies that no model uses take {format_size(unused_bytes)}. The server"
            " deletes them the next time it starts; `emberd remove` deletes them now."
        )
    for note in notes:
        typer.echo(note)


def _with_backends(config: "Config", models: "Iterable[ListedModel]") -> list[dict[str, Any]]:
    """Return the rows for `--json`, with where each model runs here, or why it does not."""
    from emberd.backends.here import architecture_of, installed, runs_on

    here, rows = installed(), []
    for model in models:
        architecture = architecture_of(config.catalog.get(model.name), model.folder)
        found = runs_on(model.backend, architecture, here)
        where = {"runs_on": list(found.backends), "why_not": found.why_not}
        rows.append({**asdict(model), "architecture": architecture, **where})
    return rows


def faster_notes(specs: "Iterable[ModelSpec]") -> list[str]:
    """Say which entries that a user wrote would be faster here with another `compute`."""
    from emberd.backends.faster import faster_compute
    from emberd.config.load import is_built_in

    found = [(spec, faster_compute(spec)) for spec in specs]
    return [
        faster.told(spec.name)
        for spec, faster in found
        if faster and not is_built_in(spec, faster.key)
    ]


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
    every: Annotated[bool, typer.Option("--all", help="All models in the list.")] = False,
    revision: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Download this branch, tag or commit from the Hub."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Download a newer commit if the Hub has one.")
    ] = False,
    as_json: AsJson = False,
    as_lines: AsLines = False,
) -> None:
    """Download models, and check those that are already here.

    A model that was not pulled is downloaded and compiled at its first request. To continue a
    download that was stopped, run the same command again.
    """
    root: Root = ctx.obj
    form = form_of(as_json=as_json, as_lines=as_lines)
    config = root.load()
    wanted = [spec.name for spec in config.catalog] if every else list(dict.fromkeys(names or []))
    if not wanted:
        raise RequestError("No model was named.", hint="Name one or more models, or use --all.")
    if revision and len(wanted) > 1:
        raise RequestError(
            "--revision works with one model only.", hint="Each repository has its own revisions."
        )
    rows: list[dict[str, Any]] = []
    failures: list[EmberdError] = []
    for name in wanted:
        try:
            with resumable(), count_bytes(name, form) as report:
                say = say_steps("lines" if as_lines else "nothing")  # the bar has this terminal
                rows.append(pull_one(config, name, revision, update=update, report=report, say=say))
        except EmberdError as error:
            failures.append(error)
            rows.append({"name": name, "error": error.message, "hint": error.hint})
        else:
            if not as_json:
                typer.echo(pull_sentences(rows[-1]))
    if as_json:
        typer.echo(json.dumps({"models": rows}))
    if len(failures) == 1:
        raise failures[0]
    if failures:
        lines = [f"  {error.message} {error.hint or ''}".rstrip() for error in failures]
        raise SourceError("\n".join([f"{len(failures)} of {len(wanted)} models failed:", *lines]))


def pull_one(
    config: "Config",
    name: str,
    revision: str | None,
    *,
    update: bool,
    report: "OnProgress",
    say: "Callable[[str], None]" = lambda _what: None,
) -> dict[str, Any]:
    """Fetch or check one model, and prepare it; return what `--json` says. Raises EmberdError.

    `report` is told how much of a download is here, `say` what is being done.
    """
    from emberd.backends import plugins
    from emberd.folder.pull import pull
    from emberd.folder.space import BackendFiles
    from emberd.spaces.lock import LockFile

    spec = config.catalog.get(name)
    backend = plugins.resolve(spec.backend)
    say(f"looking for the files of {spec.name}")
    pulled = pull(
        spec,
        backend=BackendFiles(backend, plugins.load(backend).files),
        hub=config.homes.hub,
        lock=LockFile(config.homes.state),
        revision=revision,
        update=update,
        report=report,
    )
    is_used = pulled.fingerprint is not None
    if is_used:
        say(f"preparing {spec.name} for this machine")
    prepared = try_to_prepare(config, spec) if is_used else None
    return {
        "name": spec.name,
        "status": pulled.status,
        "source": str(pulled.copy.source),
        "folder": str(pulled.copy.folder),
        "downloaded": pulled.copy.downloaded,
        "size_bytes": pulled.size_bytes,
        "checked_by": pulled.check.by,
        "offline": pulled.check.offline,
        "damaged": list(pulled.check.damaged),
        "newer": pulled.check.newer,
        "fingerprint": pulled.fingerprint,
        "prepared_s": prepared and round(prepared.seconds, 3),
        "notes": _notes(config, spec, pulled, revision, prepared),
    }


def _notes(
    config: "Config",
    spec: "ModelSpec",
    pulled: "Pulled",
    revision: str | None,
    prepared: "Prepared | None" = None,
) -> list[str]:
    """Say what to know or do after a pull."""
    notes = []
    newer, now, before = pulled.check.newer, pulled.fingerprint, pulled.fingerprint_before
    if newer and pulled.status != "updated":
        notes.append(
            f"The Hub has a newer commit, {newer}: `emberd pull {spec.name} --update` gets it"
            " (its vectors may be in another space)."
        )
    if now is None:
        notes.append(
            f"It is not used yet. To use it, add `revision: {revision}` to"
            f" `hf: {pulled.copy.source.hf}` under models.{spec.name}.sources in"
            f" {config.homes.config}."
        )
    elif before and before != now:
        notes.append(f"Its fingerprint was {before} and is now {now}; {_compared(spec, prepared)}")
    return notes


def _compared(spec: "ModelSpec", prepared: "Prepared | None") -> str:
    """Say whether the vectors of a model whose files changed are still the same."""
    if prepared is None:
        return "the next load compares the vectors."
    if not prepared.entry.changed_to:
        return "its vectors are still of the same space."
    entry = prepared.entry
    return f"its vectors are not the same: {entry.reasons}. {entry.advice(spec.name)}"


def pull_sentences(row: dict[str, Any]) -> str:
    """Say what was done for one model: where from, how large, what was checked."""
    known = {
        "hub": ", checked against the Hub",
        "kept": ", unchanged since the last pull",
        None: "; there are no known hashes to compare with",
    }
    done = {
        "pulled": "pulled from",
        "updated": "updated from",
        "repaired": f"replaced damaged or missing {', '.join(row['damaged'])} from",
        "changed": f"here, but {', '.join(row['damaged'])} changed since it was last used:",
        "here": f"here{known[row['checked_by']]}"
        + (f" ({row['offline']}):" if row["offline"] else ":"),
    }
    size = format_size(row["size_bytes"])
    first = f"{row['name']}: {done[row['status']]} {row['source']}, {size}"
    took = [prepared_in(row["prepared_s"])] if row["prepared_s"] else []
    return "\n  ".join([first, row["folder"], *took, *row["notes"]])


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

    This also deletes emberd's compiled copies of them. Your own folders and installed packages
    are kept.
    """
    from emberd.models.remove import Places, alone, own_sources, plan_removal
    from emberd.models.remove import remove as delete
    from emberd.spaces.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    specs = list({spec.name: spec for spec in map(config.catalog.get, names)}.values())
    lock = LockFile(config.homes.state)
    places = Places(hub=config.homes.hub, cache=config.homes.cache, lock=lock)
    with alone(places):
        planned = plan_removal(specs, config.catalog, places, shared=yes)
        _require_unloaded(config, planned.affected)
        known = lock.read()
        done = delete(planned, config.catalog, places)
    removed, compiled_bytes, kept = done.repositories, done.compiled_bytes, planned.kept
    if kept and not removed and not compiled_bytes:
        raise RequestError(
            f"Nothing was removed: {_shared(kept)}.",
            hint="Add --yes to remove the files for all of them.",
        )
    notes = [f"{hub_id}: removed, {format_size(size)}." for hub_id, size in removed.items()]
    if not removed and not kept:
        notes.append(f"The Hub's cache has no files of {', '.join(spec.name for spec in specs)}.")
    if compiled_bytes:
        notes.append(f"Compiled copies that no model uses: removed, {format_size(compiled_bytes)}.")
    if kept:
        notes.append(f"{_shared(kept)}: kept (--yes removes the files).")
    if planned.losing:
        notes.append(f"This also removed the files of {', '.join(planned.losing)}.")
    notes += map(_kept, own_sources(specs, config.homes.hub))
    notes += _forget(config, specs, known)
    freed_bytes = sum(removed.values()) + compiled_bytes
    if as_json:
        names = [spec.name for spec in specs]
        said: dict[str, Any] = {"models": names, "freed_bytes": freed_bytes, "removed": removed}
        said |= {"compiled_bytes": compiled_bytes, "kept": kept}
        typer.echo(json.dumps({**said, "notes": notes}))
    else:
        typer.echo("\n".join([*notes, f"Freed {format_size(freed_bytes)} of disk space."]))


def _forget(
    config: "Config", specs: "Sequence[ModelSpec]", known: "Mapping[str, LockEntry]"
) -> list[str]:
    """Delete the vectors of removed models that are kept on disk; return what to say about it."""
    from emberd.cli.cache import forget_vectors

    try:
        count = forget_vectors(config, specs, known)
    except RequestError as error:
        return [f"Its vectors were not deleted from the cache: {error.message}"]
    return [f"Vectors kept on disk: {count:,} removed."] if count else []


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


def _shared(kept: "Mapping[str, Sequence[str]]") -> str:
    return "; ".join(
        f"{hub_id} is also used by {', '.join(users)}" for hub_id, users in kept.items()
    )


def _kept(source: "Source") -> str:
    """Say that these files are kept, and why."""
    if source.path:
        return f"The folder {source.path} is your own and was kept."
    command = pip("uninstall", source.package or "")
    return f"The package {source.package} was kept; `{command}` removes it."
