"""`emberd migrate check | run | undo | status`: whose vectors a store holds, and moving it."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, complete_model, complete_store, resumable
from emberd.errors import BadOptionError, ConfigError, RequestError
from emberd.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emberd.config.load import Config
    from emberd.migrate.base import Copy, Key
    from emberd.migrate.check import Report
    from emberd.migrate.embedding import Embedder
    from emberd.migrate.run import Moved, Named, Plan
    from emberd.migrate.run import Report as Told
    from emberd.migrate.workplace import Note
    from emberd.spaces.stores import KnownStore

EXIT_CODES = {"compatible": 0, "re-embed": 3, "mixed": 4, "unknown": 5}
KEYS_SHOWN = 8
KEYS_TOLD = 20  # in JSON

app = typer.Typer(
    no_args_is_help=True, help="Find out whose vectors a store holds; embed it again."
)

StoreName = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="A file, a folder, or a name below `stores:` in the config file.",
        autocompletion=complete_store,
    ),
]
Kind = Annotated[
    str | None, typer.Option(metavar="KIND", help="Kind of store, such as cmem or sqlite-vec.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        help="Where things are in it, such as text=notes.body (docs/migrating-a-store.md).",
    ),
]


@app.command()
def check(
    ctx: typer.Context,
    store: StoreName,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Rows to embed, evenly spread, or `all`; 200 without a stamp."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Compare with this model (may be repeated); without it, with all here.",
            autocompletion=complete_model,
        ),
    ] = None,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Say which model made a store's vectors.

    And whether they fit the model that its users ask for. Exit code 0: they fit, 3: to be embedded
    again, 4: of several models, 5: of none that is here.
    """
    from emberd.migrate import check as checking

    config, named = _open(ctx, store, kind, options)
    with embedder_of(config) as embedder:
        report = checking.check(
            config,
            named,
            embedder,
            sample=_sample(sample),
            models=model or (),
            progress=_say_dimly(quiet=as_json),
        )
    _note_known(config, named, report)
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "exit_code": EXIT_CODES[report.verdict]}))
    else:
        _show(report, named)
    raise typer.Exit(EXIT_CODES[report.verdict])


@app.command()
def run(
    ctx: typer.Context,
    store: StoreName,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="MODEL",
            help="The model; without it the one its users ask for.",
            autocompletion=complete_model,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how long and how much disk; change nothing.")
    ] = False,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=2048, help="Texts embedded in one request.")
    ] = 256,
    keep_backup: Annotated[
        bool,
        typer.Option(
            "--keep-backup/--no-keep-backup", help="Keep the old vectors, for `migrate undo`."
        ),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Embed every row, also where all seem right.")
    ] = False,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Move vectors without a text out of the store.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to the question.")] = False,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Embed a store again with another model.

    Stopped at any moment, the same command goes on where it was; the store is wholly old until it
    is wholly new.
    """
    from emberd.migrate import embedding
    from emberd.migrate import run as running

    config, named = _open(ctx, store, kind, options)
    state = config.homes.state
    recovered = running.recover(named, state)
    if recovered and not as_json:
        typer.echo(recovered)
    with resumable(), embedder_of(config) as embedder:
        target = embedding.find_target(
            config,
            embedder,
            to or named.served_by or config.settings.default,
            input_type=named.input_type,
        )
        completed = 0 if dry_run else running.complete(named, target, embedder, state)
        if completed and not as_json:
            typer.echo(f"{completed} rows whose text came after their vector are completed.")
        plan = running.plan(named, target, embedder, state, set_aside=set_aside)
        about = plan_row(named, plan)
        if plan.there and not force:
            note_there(config, named, plan)
            if as_json:
                row = {**about, "status": "there", "recovered": recovered}
                typer.echo(json.dumps({**row, "completed": completed}))
            else:
                typer.echo(f"{named.name} is in the space of {target.model} already: {plan.there}.")
            return
        if not as_json:
            typer.echo(plan_sentences(named, plan))
        if dry_run:
            if as_json:
                typer.echo(json.dumps({**about, "status": "planned"}))
            return
        _ask(f"Embed it again with {target.model}?", yes=yes)
        with bars_of(quiet=as_json) as report:
            moved = running.migrate_all(
                [named], target, embedder, state,
                batch=batch, keep_backup=keep_backup, set_aside=set_aside, report=report,
            )[named.name]  # fmt: skip
    served_by = named.served_by or config.catalog.get(config.settings.default).name
    if as_json:
        row = {**about, **asdict(moved), "status": "moved", "recovered": recovered}
        typer.echo(json.dumps({**row, "default_fits": served_by == target.model}))
    else:
        typer.echo(moved_sentences(named, moved, target.model, served_by))


@app.command()
def undo(
    ctx: typer.Context,
    store: StoreName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to the question.")] = False,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Take back the last migration of a store, from its backup."""
    from emberd.migrate import run as running
    from emberd.migrate.check import whose

    config, named = _open(ctx, store, kind, options)

    def confirm(note: "Note", changed: bool) -> None:
        if changed and not as_json:
            typer.echo(
                "The store was written to since, which the backup lacks. As it is now it is copied"
                " beside the backups first."
            )
        if note.backup_hash is None and not as_json:
            typer.echo(
                "This backup was made by an older emberd, which kept no hash of it: only the"
                " database's own check says that it is whole."
            )
        _ask(f"Restore {named.name} as it was before {note.model}, {note.at}?", yes=yes)

    with resumable():
        undone = running.undo(named, config.homes.state, confirm=confirm)
    holds = whose(config, named)  # an older stamp may be back
    copy = str(undone.copy) if undone.copy else None
    if as_json:
        row = {"store": named.name, "from": undone.note.model, "copy": copy}
        checked = "integrity" if undone.note.backup_hash is None else "hash"
        typer.echo(json.dumps({**row, "changed": undone.changed, "backup_checked_by": checked}))
        return
    typer.echo(f"{named.name} is as it was at {undone.note.at}.")
    if copy:
        also = ", with what was written since" if undone.changed else ""
        typer.echo(f"As it was until now{also}: {copy}")
    typer.echo(_after_undo(config, named, holds))


def _role(named: "Named") -> str:
    """Return what says which model the users of a store get."""
    return f"`stores.{named.name}.model`" if named.served_by else "the default"


def _after_undo(config: "Config", named: "Named", holds: "KnownStore | None") -> str:
    """Say what is to be done once a store is as it was."""
    from emberd.spaces.lock import LockFile

    asked = config.catalog.get(named.served_by or config.settings.default).name
    role = _role(named)
    if holds is None or holds.model is None:
        check = f"`emberd migrate check {named.argument}` says whose vectors it holds"
        if named.is_path:  # whether its users name a model is not known
            role = "the model that its users name, or the default where they name none,"
        return f"Restart what uses it. {check}; {role} has to be that model."
    entry = LockFile(config.homes.state).read().get(asked)
    if holds.fits(asked, entry):
        return f"Restart what uses it. Its vectors fit {role}, {asked}."
    change = f"set {role} to {holds.model}" if named.served_by else f"`emberd use {holds.model}`"
    if named.is_path:
        change = f"have its users name {holds.model}, or run {change}"
    found = f"It holds vectors of {holds.model} and {role} is {asked}"
    return f"{found}: {change}, and restart what uses it."


@app.command()
def status(
    ctx: typer.Context,
    store: StoreName,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Say what is known of a store, and what can be resumed."""
    from emberd.migrate import run as running
    from emberd.migrate.check import whose

    config, named = _open(ctx, store, kind, options)
    found = running.status(named, config.homes.state)
    noted = whose(config, named)
    if as_json:
        typer.echo(json.dumps({**found, "noted": asdict(noted) if noted else None}))
        return
    if found["recovered"]:
        typer.echo(found["recovered"])
    stamp, staged = found["stamp"], found["staged"]
    typer.echo(
        f"{named.name}: {found['rows']} rows of {found['dimensions']} dimensions, "
        + (
            f"migrated to {stamp['model']} ({stamp['fingerprint']}) at {stamp['made_at']}."
            if stamp
            else "never migrated"
            + ("." if noted else " (`emberd migrate check` finds out whose vectors they are).")
        )
    )
    if noted and not (stamp and noted.model == stamp["model"]):
        typer.echo(f"It was found to hold vectors of {noted.model or 'more than one model'}.")
    if staged:
        doing = "under way" if found["under_way"] else "stopped; `emberd migrate run` goes on"
        typer.echo(f"A migration to {staged['model']} is {doing}: {staged['rows']} rows are ready.")
    for backup in found["backups"]:
        size = format_size(backup["bytes"])
        typer.echo(
            f"Backup from before {backup['model']}, {backup['at']}: {backup['path']}, {size}"
        )
    for path in found["unreadable"]:
        typer.echo(f"Backup whose note is damaged or gone, so that `undo` cannot use it: {path}")
    for copy in found["copies"]:
        typer.echo(f"Copy from before something was taken back: {copy}")


# -- inside ---------------------------------------------------------------------------------


def _open(
    ctx: typer.Context, store: str, kind: str | None, options: list[str] | None
) -> tuple["Config", "Named"]:
    from emberd.migrate import known

    root: Root = ctx.obj
    config = root.load()
    # What the pool would log of its workers is no part of what this prints.
    logging.getLogger("emberd").addHandler(logging.NullHandler())
    pairs = [option.partition("=") for option in options or []]
    wrong = next((key for key, equals, _ in pairs if not equals), None)
    if wrong:
        raise BadOptionError(f"--option {wrong}: it is not of the form KEY=VALUE.")
    given = {key: value for key, _, value in pairs}
    return config, known.find(config, store, kind=kind, options=given)


@contextmanager
def embedder_of(config: "Config") -> "Iterator[Embedder]":
    """Give the running server, or a pool of our own where none runs."""
    from emberd.client import clients
    from emberd.migrate.embedding import PoolEmbedder, ServerEmbedder

    server = clients.find(config)
    if server is None:
        with PoolEmbedder(config) as pool:
            yield pool
        return
    rows = server.models()
    loaded = [row["name"] for row in rows if row["state"] != "cold"]
    with ServerEmbedder(server, loaded) as embedder:
        yield embedder


def _sample(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "all":
        return 0
    if not text.isdecimal() or not int(text):
        raise BadOptionError(f"--sample {text}: it is neither a number of rows nor `all`.")
    return int(text)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(
            "Nothing was replaced: nobody is there to be asked.", hint="Add --yes to agree."
        )
    if not typer.confirm(question):
        raise typer.Exit(1)


def _say_dimly(*, quiet: bool) -> Callable[[str], None]:
    shown = sys.stderr.isatty() and not quiet
    return lambda what: typer.secho(f"{what} ...", dim=True, err=True) if shown else None


@contextmanager
def bars_of(*, quiet: bool) -> "Iterator[Callable[[Named], Told]]":
    """Draw a bar a store: how many rows, how fast, how long still."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:

        def of(named: "Named") -> "Told":
            bar = bars.add_task(named.name, total=None, rate="")

            def report(done: int, total: int) -> None:
                speed = bars.tasks[bar].speed
                rate = f"{speed:.0f} rows/s" if speed else ""
                bars.update(bar, completed=done, total=total, rate=rate)

            return report

        yield of


def plan_row(named: "Named", plan: "Plan") -> dict[str, Any]:
    """Return what moving a store takes, for JSON."""
    return {
        "store": named.name,
        "path": str(named.store.path),
        "model": plan.target.model,
        "fingerprint": plan.target.fingerprint,
        "rows": plan.shape.rows,
        "without_text": len(plan.lacking.text),
        "without_text_keys": plan.lacking.text[:KEYS_TOLD],
        "copies": [asdict(each) for each in plan.copies],
        "without_vector": len(plan.lacking.vector),
        "without_vector_keys": plan.lacking.vector[:KEYS_TOLD],
        "dimensions_before": plan.shape.dimensions,
        "dimensions": plan.target.dimensions,
        "staged": plan.staged,
        "plan": {
            "minutes": round(plan.seconds / 60, 2),
            "disk_bytes": plan.disk_bytes,
            "backup_bytes": plan.cost.backup_bytes,
            "locked_s": round(plan.cost.locked_s, 2),
        },
    }


def plan_sentences(named: "Named", plan: "Plan") -> str:
    """Say what moving a store takes, for people."""
    shape, cost, lacking = plan.shape, plan.cost, plan.lacking
    lines = [
        f"{named.name}: {shape.rows} rows, {shape.dimensions} dimensions,"
        f" to {plan.target.model}, {plan.target.dimensions} dimensions.",
        f"About {_minutes(plan.seconds)}"
        + (f" ({plan.rows_per_s:.0f} rows/s measured);" if shape.rows else ";")
        + f" {format_size(plan.disk_bytes)} of disk, of which the backup keeps"
        f" {format_size(cost.backup_bytes)}; writers wait about {cost.locked_s:.1f} s at the end.",
    ]
    if plan.staged:
        lines.append(f"{plan.staged} rows are ready from a run that was stopped.")
    lines += _copies_sentences(named, plan.copies)
    if lacking.text:
        lines.append(
            f"{len(lacking.text)} vectors have no text ({_few(lacking.text)}) and are set aside in"
            " the same file."
        )
    if lacking.vector:
        lines.append(
            f"{len(lacking.vector)} texts have no vector ({_few(lacking.vector)}) and stay so."
        )
    return "\n".join(lines)


def _copies_sentences(
    named: "Named", copies: "Iterable[Copy]", *, moved: bool = False
) -> list[str]:
    """Say where else vectors may be; `moved`: after the store's own were replaced."""
    lines = []
    for each in copies:
        line = f"{each.column} holds {each.rows} BLOBs of the size of a vector, too; {each.same}"
        line += f" are the store's own (by {each.key})" if each.key else " are the store's own"
        if each.same < each.rows:
            line += f", not those of rowid {_few(each.others)}" if each.others else ""
        option = f"`-o also={each.column}`"
        if each.moves:
            line += f". {each.same} {'moved' if moved else 'move'} along"
            line += "; the others stay." if each.same < each.rows else "."
        elif each.same and moved:
            line = f"Warning: {each.column} still holds {each.same} of the old vectors."
            if each.movable:
                line += f" `emberd migrate undo {named.argument}`, then `run` with {option}, moves"
                line += " them along."
        elif each.same and each.movable:
            line += f". {option} moves them along; without it they stay what they are."
        else:
            line += ". If they are vectors, they stay what they are."
        lines.append(line)
    return lines


def moved_sentences(named: "Named", moved: "Moved", model: str, served_by: str) -> str:
    """Say what came of a store, for people; `served_by` is the model that its users get now."""
    lines = [
        f"{named.name} is moved to {model}: {moved.rows} rows, writers waited"
        f" {moved.locked_s:.1f} s. Checked: rows, dimension, search",
    ]
    if moved.unverified:
        lines[0] += f". No row was embedded again to compare: {moved.unverified}"
        lines.append(f"To do that: `emberd migrate check {named.argument} --sample 200`.")
    elif moved.lowest_cosine is None:
        lines[0] += "; there is no row to embed again."
    else:
        lines[0] += f", and rows embedded again (lowest cosine {moved.lowest_cosine:.4f})."
    if moved.gone:
        lines.append(f"{moved.gone} of these rows are there no more: somebody deleted them since.")
    lines += _copies_sentences(named, moved.copies, moved=True)
    if moved.set_aside:
        lines.append(
            f"{moved.set_aside} vectors without a text are in {moved.set_aside_in}. When their"
            " texts come, run this again."
        )
    if named.store.settings:
        lines.append(f"{named.store.settings} names it.")
    if moved.backup:
        lines.append(
            f"Backup: {moved.backup} (`emberd migrate undo {named.argument}` restores it)."
        )
    if moved.strays:
        whose = "in an unknown space" if moved.unverified else "with another model's vectors"
        lines.append(
            f"{moved.strays} rows were written since {whose}: once"
            f" {_role(named)} is right, run this again with --force."
        )
    if served_by != model:
        todo = (
            f"Its users ask for {served_by}: set `stores.{named.name}.model` to {model} now"
            if named.served_by
            else f"The default is still {served_by}: run `emberd use {model}` now"
        )
        lines.append(f"{todo}, so that questions are asked in the space of the answers.")
    lines.append("Restart what uses the store, so that it reads its new size and settings.")
    return "\n".join(lines)


def _few(keys: "Sequence[Key]") -> str:
    return ", ".join(map(str, keys[:KEYS_SHOWN])) + (", ..." if keys[KEYS_SHOWN:] else "")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _show(report: "Report", named: "Named") -> None:
    from emberd.cli import render

    health = report.health
    typer.echo(f"{named.name} ({report.kind}): {report.rows} rows, {report.dimensions} dimensions.")
    for count, what in (
        (health.without_vector, "texts have no vector"),
        (health.without_text, "vectors have no text"),
        (health.empty_text, "texts are NULL or empty"),
        (health.bad_vector, "vectors are zero or not finite"),
        (health.duplicates, "rows repeat the text of another"),
    ):
        if count:
            typer.echo(f"  {count} {what}.")
    if health.textless:
        typer.echo(
            f"  Vectors without a text: {_few(health.textless)}. `migrate run` refuses them, or"
            " moves them to a table of the same file: --set-aside."
        )
    if health.vectorless:
        typer.echo(
            f"  Texts without a vector: {_few(health.vectorless)}. `migrate run` leaves them."
        )
    for line in _copies_sentences(named, report.copies):
        typer.echo(f"  {line}")
    if report.candidates:
        render.show(render.candidate_table([asdict(each) for each in report.candidates]))
    default = report.default
    role = "the model that its users name" if named.served_by else "the default"
    whose = f"made by {report.model}"
    if report.judged_by == "stamp":
        whose += " by its stamp (--sample embeds rows again)"
    why = f" ({report.why})" if report.why else ""
    said = {
        "compatible": f"compatible: {whose}, which fits {role}, {default}.",
        "re-embed": f"re-embed: {whose}; {role} is {default}, another space{why}.",
        "mixed": "mixed: the rows are of several models.",
        "unknown": "unknown: no model that is here made these vectors; `emberd pull` others.",
    }
    if report.judged_by == "sample" and not report.sampled:
        empty = "the store is empty, and its dimension"
        textless = health.empty_text == health.rows
        what = (
            "no row has a text"
            if textless
            else "no row that was looked at has a text and a usable vector"
        )
        said = {
            "compatible": f"compatible: {empty} fits {role}, {default}.",
            "re-embed": f"re-embed: {empty} does not fit {role}, {default}:"
            f" `emberd migrate run {named.argument} --to {default}`.",
            "unknown": f"unknown: {what} to compare with.",
        }
    typer.echo(said[report.verdict])
    if report.verdict == "mixed" or "" in report.made_by:
        for model, keys in report.made_by.items():
            shown = f"{len(keys)} of {report.sampled}: {_few(keys)}"
            typer.echo(f"  {model or 'no model here'}: {shown}")
    if report.work and report.verdict != "compatible":
        work = report.work
        typer.echo(
            f"Embedding it again with {work.model} takes about {_minutes(work.minutes * 60)} and"
            f" {work.megabytes:.0f} MB; writers wait about {work.locked_s:.1f} s at the end:"
            f" `emberd migrate run {named.argument} --to {work.model}`."
        )


def _note_known(config: "Config", named: "Named", report: "Report") -> None:
    """Note what was found of a store that the server should know."""
    from emberd.migrate.check import known_from
    from emberd.spaces.stores import StoresFile

    stores = StoresFile(config.homes.state)
    found = known_from(report, named)
    is_known = named.name in config.settings.stores or named.name in stores.read()
    if is_known and (found or not report.rows):  # an empty store is nobody's any more
        _put(config, named.name, found)


def note_there(config: "Config", named: "Named", plan: "Plan") -> None:
    """Note that a store is where it was to be moved to."""
    from emberd.migrate.run import known_store

    found = known_store(named, plan.target.model, plan.target.fingerprint)
    _put(config, named.name, found)


def _put(config: "Config", name: str, found: Any) -> None:  # noqa: ANN401 - a KnownStore
    from emberd.spaces.stores import StoresFile

    try:
        StoresFile(config.homes.state).put(name, found)
    except OSError as error:
        raise ConfigError(
            f"The folder {config.homes.state} cannot be written: {error.strerror}."
        ) from None
