"""`emberd migrate check | run | undo | status`: whose vectors a store holds, and changing that."""

import json
import logging
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from emberd.cli.cluster import RayAddress, embedder_at
from emberd.cli.context import AsJson, Root, complete_model, complete_store, resumable
from emberd.cli.migrate_report import (
    after_undo,
    migrated_sentences,
    plan_row,
    plan_sentences,
    show_report,
    status_sentences,
)
from emberd.cli.progress import AsLines, count_rows, form_of, say_steps
from emberd.dtypes import STORED, Dtype
from emberd.errors import BadOptionError, RequestError

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.migrate.notes import Note
    from emberd.migrate.store_ref import StoreRef

EXIT_CODES = {"compatible": 0, "re-embed": 3, "mixed": 4, "unknown": 5}

app = typer.Typer(
    no_args_is_help=True, help="Find out which model made a store's vectors, or migrate it."
)

StoreName = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="A file, a folder, a URL, or a name under `stores:` in the config file.",
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
        help="Where things are in the store, such as text=notes.body (docs/migrating-a-store.md).",
    ),
]


@app.command()
def check(
    ctx: typer.Context,
    store: StoreName,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Rows to embed, evenly spread, or `all`; by default 200, or none if the store"
            " is stamped.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Compare with this model (repeatable); by default with all on this machine.",
            autocompletion=complete_model,
        ),
    ] = None,
    recut: Annotated[
        bool,
        typer.Option(
            "--recut",
            help="All documents were cut again as the store's `chunk` says: record that.",
        ),
    ] = False,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
    as_lines: AsLines = False,
) -> None:
    """Say which model made a store's vectors, and whether they fit.

    Exit code 0: they fit, 3: they must be embedded again, 4: several models made them, 5: no model
    on this machine made them.
    """
    from emberd.migrate.check import check as check_store
    from emberd.migrate.check import note_report
    from emberd.migrate.embedding import open_embedder

    form = form_of(as_json=as_json, as_lines=as_lines)
    config, ref = open_ref(ctx, store, kind, options)
    with open_embedder(config) as embedder:
        report = check_store(
            config,
            ref,
            embedder,
            sample=_sample(sample),
            models=model or (),
            progress=say_steps(form),
        )
    if recut:
        report = replace(report, chunk=ref.chunk)
    note_report(config, ref, report)
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "exit_code": EXIT_CODES[report.verdict]}))
    else:
        show_report(report, ref)
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
            help="The new model; by default the one the store's users ask for.",
            autocompletion=complete_model,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="What the numbers become: float, int8 or bit; by default they stay what they are.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show how long it takes and how much disk; change nothing."),
    ] = False,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=2048, help="Texts embedded in one request.")
    ] = 256,  # `embedding.BATCH`, which cannot be imported here: NumPy would be, too
    keep_backup: Annotated[
        bool,
        typer.Option(
            "--keep-backup/--no-keep-backup", help="Keep the old vectors, for `migrate undo`."
        ),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Embed every row, even if all of them seem right.")
    ] = False,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Move vectors without a text out of the store.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    ray: RayAddress = None,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
    as_lines: AsLines = False,
) -> None:
    """Embed a store again with another model.

    If it is stopped, at any moment, run the same command to continue. The store keeps all of its
    old vectors until the new ones replace them, all at once.
    """
    from emberd.migrate.check import note_target
    from emberd.migrate.embedding import find_target
    from emberd.migrate.joint_run import RunOptions, migrate_all
    from emberd.migrate.plan import plan as plan_migration
    from emberd.migrate.recovery import recover
    from emberd.migrate.textless import complete

    form = form_of(as_json=as_json, as_lines=as_lines)
    say = say_steps(form)
    config, ref = open_ref(ctx, store, kind, options)
    state = config.homes.state
    recovered = recover(ref, state)
    if recovered and not as_json:
        typer.echo(recovered)
    name = to or ref.served_by or config.settings.default
    spec, role = config.catalog.find(name, ref.input_type, kinds=("embed",))
    ref = replace(ref, input_type=role, dtype=_dtype(dtype))
    wanted = ref.wanted
    with resumable(), embedder_at(config, ray) as embedder:
        say(f"loading {spec.name}")
        target = find_target(config, embedder, spec.name, input_type=role, dtype=wanted)
        completed = 0 if dry_run else complete(ref, target, embedder, state)
        if completed and not as_json:
            typer.echo(
                f"{completed} vectors that were set aside got a text, and are back in the store."
            )
        say("measuring what it takes")
        plan = plan_migration(ref, target, embedder, state, set_aside=set_aside)
        about = plan_row(ref, plan)
        if plan.there and not force:
            note_target(config, ref, plan.target)
            if as_json:
                row = {**about, "status": "there", "recovered": recovered}
                typer.echo(json.dumps({**row, "completed": completed}))
            else:
                typer.echo(f"{ref.name} is already in the space of {target.model}: {plan.there}.")
            return
        if not as_json:
            typer.echo(plan_sentences(ref, plan))
        if dry_run:
            if as_json:
                typer.echo(json.dumps({**about, "status": "planned"}))
            return
        _ask(f"Embed it again with {target.model}?", yes=yes)
        with count_rows(form) as progress:
            how = RunOptions(batch=batch, keep_backup=keep_backup, set_aside=set_aside)
            migrated = migrate_all([ref], target, embedder, state, options=how, progress=progress)[
                ref.name
            ]
    served_by = ref.served_by or config.catalog.get(config.settings.default).name
    if as_json:
        row = {**about, **asdict(migrated), "status": "moved", "recovered": recovered}
        typer.echo(json.dumps({**row, "default_fits": served_by == target.model}))
    else:
        typer.echo(migrated_sentences(ref, migrated, target.model, served_by))


@app.command()
def undo(
    ctx: typer.Context,
    store: StoreName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
    as_lines: AsLines = False,
) -> None:
    """Undo the last migration of a store, from its backup."""
    from emberd.migrate.check import whose
    from emberd.migrate.undo import undo as undo_last

    form = form_of(as_json=as_json, as_lines=as_lines)
    config, ref = open_ref(ctx, store, kind, options)

    def confirm(note: "Note", changed: bool) -> None:
        if changed and not as_json:
            typer.echo(
                "The store was written to after the migration, and the backup does not contain"
                " those changes. The store as it is now will first be copied next to the backups."
            )
        if note.backup_hash is None and not as_json:
            typer.echo(
                "This backup was made by an older emberd, which did not record its hash, so only"
                " the database's own check can tell whether it is intact."
            )
        _ask(f"Restore {ref.name} as it was before {note.model}, at {note.at}?", yes=yes)
        say_steps(form)(f"restoring {ref.name}")

    with resumable():
        restored = undo_last(ref, config.homes.state, confirm=confirm)
    holds = whose(config, ref)  # an older stamp may be back
    copy = str(restored.copy) if restored.copy else None
    if as_json:
        row = {"store": ref.name, "from": restored.note.model, "copy": copy}
        checked = "integrity" if restored.note.backup_hash is None else "hash"
        typer.echo(json.dumps({**row, "changed": restored.changed, "backup_checked_by": checked}))
        return
    typer.echo(f"Restored {ref.name} as it was at {restored.note.at}.")
    if copy:
        also = ", including the later changes" if restored.changed else ""
        typer.echo(f"Copy of it as it was until now{also}: {copy}")
    typer.echo(after_undo(config, ref, holds))


@app.command()
def status(
    ctx: typer.Context,
    store: StoreName,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Show what is known about a store, and what can be resumed."""
    from emberd.migrate.check import whose
    from emberd.migrate.status import status as status_of

    config, ref = open_ref(ctx, store, kind, options)
    found = status_of(ref, config.homes.state)
    noted = whose(config, ref)
    if as_json:
        typer.echo(json.dumps({**found, "noted": asdict(noted) if noted else None}))
        return
    for line in status_sentences(ref, found, noted):
        typer.echo(line)


# -- inside ---------------------------------------------------------------------------------


def open_ref(
    ctx: typer.Context, store: str, kind: str | None, options: list[str] | None
) -> tuple["Config", "StoreRef"]:
    """Read the configuration, and open the store that a command line names."""
    from emberd.migrate import known

    root: Root = ctx.obj
    config = root.load()
    # What the pool logs about its workers is not part of the output.
    logging.getLogger("emberd").addHandler(logging.NullHandler())
    pairs = [option.partition("=") for option in options or []]
    wrong = next((key for key, equals, _ in pairs if not equals), None)
    if wrong:
        raise BadOptionError(f"--option {wrong}: expected KEY=VALUE.")
    given = {key: value for key, _, value in pairs}
    return config, known.find(config, store, kind=kind, options=given)


def _sample(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "all":
        return 0
    if not text.isdecimal() or not int(text):
        raise BadOptionError(f"--sample {text}: expected a number of rows, or `all`.")
    return int(text)


def _dtype(text: str | None) -> Dtype | None:
    found = [dtype for dtype, name in STORED.items() if name == text]
    if text is not None and not found:
        raise BadOptionError(f"--dtype {text}: expected {', '.join(STORED.values())}.")
    return found[0] if found else None


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(
            "Nothing was replaced, because there is no terminal to ask for confirmation.",
            hint="Add --yes to go ahead without being asked.",
        )
    if not typer.confirm(question):
        raise typer.Exit(1)
