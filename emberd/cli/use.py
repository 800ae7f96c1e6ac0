"""`emberd use NAME`: make a model the default, after saying what that means for stored vectors."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, complete_model, resumable
from emberd.errors import BadOptionError, RequestError

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.registry.spec import ModelSpec
    from emberd.switch.moves import Moves
    from emberd.switch.switch import Switch


def use(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name or alias, as `emberd list` shows it.",
            autocompletion=complete_model,
        ),
    ],
    migrate: Annotated[
        bool,
        typer.Option(
            "--migrate",
            help="Also migrate the stores that follow the default, all or none.",
        ),
    ] = False,
    set_aside: Annotated[
        bool,
        typer.Option(
            "--set-aside", help="With --migrate: move vectors without a text out of the stores."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model the default, for requests that do not name one.

    Changes `default:` in the config file; a running server uses it at once. Vectors of different
    models cannot be compared, so stored vectors of the old one must be embedded again.
    """
    from emberd.client import clients
    from emberd.switch.preview import preview
    from emberd.switch.recovery import recover
    from emberd.switch.switch import Switch, default_in_use

    if set_aside and not migrate:
        raise BadOptionError("--set-aside has no effect without --migrate.", hint="Add --migrate.")
    root: Root = ctx.obj
    config = root.load()
    recovery = recover(config, strict=migrate)
    if recovery.done:
        config = root.load()  # the default may have changed back
    spec = _without_role(config, name)
    before = config.catalog.get(config.settings.default)
    server = clients.find(config)
    in_use = default_in_use(config, server)
    seen = preview(
        config,
        spec.name,
        unreadable=recovery.unreadable,
        server=server.address if server else None,
        migrates=migrate,
    )
    report: dict[str, Any] = {**seen.to_dict(), "recovered": recovery.done}
    if migrate:
        report["note"] = _note_of_followers(config, dry_run=dry_run)
    if not as_json:
        for sentence in recovery.done:
            typer.echo(sentence)
    is_default = before is spec and in_use in (None, spec.name)
    if is_default and not (migrate and config.settings.stores):
        _print_report({**report, "status": "unchanged"}, as_json=as_json)
        return
    switch = Switch.to(config, spec.name, server)
    options = _Options(set_aside=set_aside, yes=yes, dry_run=dry_run, as_json=as_json)
    if migrate:
        _use_and_migrate(config, report, switch, options)
        return
    if dry_run or not as_json:
        _print_report({**report, "status": "planned"}, as_json=as_json)
    if dry_run:
        return
    _require_consent(report, options)
    switch.commit()
    _print_report({**report, "status": "changed"}, as_json=as_json)


def _without_role(config: "Config", name: str) -> "ModelSpec":
    """Return the model; raise BadOptionError for a name that states a role, which is no default."""
    spec, role = config.catalog.find(name, kinds=("embed",))
    if role:
        raise BadOptionError(
            f"{name!r} states the role {role}, but the default is for texts of any role.",
            hint=f"Run `emberd use {spec.name}`. Clients state the role in their requests.",
        )
    return spec


@dataclass(frozen=True, slots=True)
class _Options:
    """How the command was called."""

    set_aside: bool
    yes: bool
    dry_run: bool
    as_json: bool


def _note_of_followers(config: "Config", *, dry_run: bool) -> str | None:
    """Return a note if `--migrate` has nothing to do."""
    from emberd.migrate import known

    if known.followers(config):
        return None
    embedded = "nothing would be embedded" if dry_run else "nothing was embedded"
    return (
        f"No configured store follows the default, so {embedded}. To migrate stores together with"
        f" it, list them under `stores:` in {config.homes.config}, without a `model:`."
    )


def _use_and_migrate(
    config: "Config", report: dict[str, Any], switch: "Switch", options: _Options
) -> None:
    """Stage every store that follows the default, then change stores, settings and default at once.

    Raises:
        EmberdError: something failed; everything is as it was.
    """
    from emberd.cli.migrate_report import migrated_sentences, plan_row
    from emberd.cli.progress import count_rows, form_of
    from emberd.migrate.embedding import open_embedder
    from emberd.switch import moves

    as_json = options.as_json
    stores = moves.open_followers(config)
    with resumable(), open_embedder(config) as embedder:
        planned = moves.plan_moves(
            config,
            stores,
            embedder,
            switch.name,
            dry_run=options.dry_run,
            set_aside=options.set_aside,
        )
        if not planned.pending and not switch.changes_file:
            planned.note_there(config)
            _print_report({**report, "stores": [], "status": "unchanged"}, as_json=as_json)
            return
        report = {**report, "plans": [plan_row(*move) for move in planned.pending]}
        _show_plans(report, planned, options)
        if options.dry_run:
            return
        _require_consent(report, options)
        with count_rows(form_of(as_json=as_json)) as bar:
            moved = planned.run(switch, bar)
    planned.note_there(config)
    rows = {name: asdict(one) for name, one in moved.items()}
    _print_report({**report, "status": "changed", "moved": rows}, as_json=as_json)
    if not as_json:
        model = planned.target.model
        for named, _ in planned.pending:
            typer.echo(migrated_sentences(named, moved[named.name], model, model))


def _show_plans(report: dict[str, Any], planned: "Moves", options: _Options) -> None:
    from emberd.cli.migrate_report import plan_sentences

    if options.dry_run or not options.as_json:
        _print_report({**report, "status": "planned"}, as_json=options.as_json)
    if options.as_json:
        return
    for move in planned.pending:
        typer.echo(plan_sentences(*move))
    if options.dry_run and report["note"]:
        typer.echo(report["note"])


def _require_consent(report: dict[str, Any], options: _Options) -> None:
    """Ask at a terminal; elsewhere require `--yes` unless no stored vector is affected."""
    if options.yes:
        return
    if sys.stdin.isatty() and sys.stdout.isatty() and not options.as_json:
        typer.confirm(f"Write it into {report['file']}?", abort=True)
    elif report["space"]["verdict"] != "same" or report.get("plans"):
        raise RequestError(
            f"The vectors of {report['name']} are, or may be, in a different space than those of"
            f" {report['before']}.",
            hint="Add --yes to do it anyway; --dry-run shows what would change.",
        )


def _print_report(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    name, before, status = report["name"], report["before"], report["status"]
    if status == "unchanged":
        typer.echo(f"{name} is already the default.")
        for sentence in [*_of_stores(report), *_to_run(report)]:
            typer.echo(sentence)
    elif status == "changed":
        where = f"the server at {report['server']} uses it from the next request"
        typer.echo(
            f"{name} is now the default; {where if report['server'] else 'no server is running'}."
        )
        if not report["is_here"]:
            typer.echo(
                f"Its files are not on this machine yet: run `emberd pull {name}` now. Until then"
                " requests wait for the download, and fail if the Hub cannot be reached."
            )
    else:
        typer.echo(f"default: {before} -> {name}, in {report['file']}")
        for sentence in _sentences(report):
            typer.echo(sentence)
    if status != "planned" and report.get("note"):
        typer.echo(report["note"])


def _sentences(report: dict[str, Any]) -> list[str]:
    """Say what the change means, for people."""
    name, before, space = report["name"], report["before"], report["space"]
    meaning = {
        "same": f"The same space ({space['why']}): vectors made by {before} can still be compared.",
        "another": f"Another space ({space['why']}): vectors made by {before} must not be"
        f" compared with those of {name}.",
        "unknown": f"It is not known whether the space stays the same: {space['why']}."
        f" To find out, run `emberd pull {name}` and send one request to each.",
    }
    lines = [meaning[space["verdict"]]]
    if "plans" not in report:
        lines += _of_stores(report)
    return lines + _to_run(report)


def _of_stores(report: dict[str, Any]) -> list[str]:
    """Say which stores do not match, or may not."""
    is_default = report["status"] == "unchanged"
    lines = []
    for store in report["stores"]:
        called = f"The store {store['name']} ({store['path']})"
        if store["why"]:
            lines.append(f"{called} {store['why']} It is not known whether it matches.")
        elif is_default:
            lines.append(f"{called} does not match it.")
        else:
            may = "would" if store["verdict"] == "re-embed" else "may"
            lines.append(f"{called} {may} no longer match.")
    return lines


def _to_run(report: dict[str, Any]) -> list[str]:
    commands = "; ".join(f"`{command}`" for command in report["run"])
    return [f"Next, run {commands}"] if commands else []
