"""`emberd verify`: load models in fresh workers and check their files and vectors."""

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, complete_model
from emberd.cli.progress import AsLines, Form, form_of, say_check, say_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from emberd.config.load import Config
    from emberd.registry.spec import ModelSpec


def verify(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Names or aliases; without any, every model whose files are here.",
            autocompletion=complete_model,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Also compare all installed backends, which takes minutes."),
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Accept that this model has changed, without any check.",
            autocompletion=complete_model,
        ),
    ] = None,
    as_json: AsJson = False,
    as_lines: AsLines = False,
) -> None:
    """Check that models' files are intact, and their vectors right.

    Exit code 1: a check failed.
    """
    root: Root = ctx.obj
    form = form_of(as_json=as_json, as_lines=as_lines)
    config = root.load()
    leave_the_log()
    if accept is not None:
        if names or full:
            raise typer.BadParameter("--accept cannot be combined with models or --full.")
        _accept(config, config.catalog.get(accept), as_json=as_json)
        return
    specs = [config.catalog.get(name) for name in names] if names else _local(config)
    rows = [row for spec in specs for row in verify_one(config, spec, full=full, form=form)]
    if as_json:
        typer.echo(json.dumps({"ok": passes(rows), "checks": rows}))
    elif not rows:
        typer.echo("No model has been downloaded yet; try `emberd pull minilm`.")
    else:
        show_checks(rows)
    if not passes(rows):
        raise typer.Exit(1)


def leave_the_log() -> None:
    """Have the pool print nothing: the table shows what it would log."""
    logging.getLogger("emberd").addHandler(logging.NullHandler())


def passes(rows: "Sequence[Mapping[str, Any]]") -> bool:
    """Whether no check failed."""
    return not any(row["verdict"] == "failed" for row in rows)


def show_checks(rows: list[dict[str, Any]]) -> None:
    """Print the checks as a table, and what to do about them."""
    from emberd.cli import render

    render.show(render.verify_table(rows))
    for row in rows:
        if row["advice"]:
            typer.echo(f"{row['model']}, {row['check']}: {row['advice']}")


def _local(config: "Config") -> list["ModelSpec"]:
    from emberd.models.availability import find_here
    from emberd.spaces.lock import LockFile

    lock = LockFile(config.homes.state).read()
    return [
        spec for spec in config.catalog if find_here(spec, config.homes.hub, lock.get(spec.name))
    ]


def verify_one(
    config: "Config", spec: "ModelSpec", *, full: bool, form: Form
) -> "Iterator[dict[str, Any]]":
    """Run the checks of one model; yield what `--json` says of each."""
    from emberd.verify.verification import verify as run

    say_steps(form)(f"Verifying {spec.name}")
    for found in run(config, spec, full=full):
        row = {"model": spec.name, **asdict(found)}
        say_check(row, form)
        yield row


def _accept(config: "Config", spec: "ModelSpec", *, as_json: bool) -> None:
    from emberd.verify.acceptance import accept

    accepted = accept(config, spec)
    if as_json:
        found = asdict(accepted) if accepted else None
        typer.echo(json.dumps({"model": spec.name, "accepted": found}))
    elif accepted is None:
        typer.echo(f"{spec.name} has not changed since it was last accepted.")
    elif accepted.left is None:
        typer.echo(
            f"Accepted the changed files of {spec.name}: its vectors are the same as before, in"
            f" space {accepted.fingerprint}."
        )
    else:
        typer.echo(
            f"Accepted {spec.name} as it is now, in space {accepted.fingerprint}.\n"
            f"Texts stored with vectors of space {accepted.left} must be embedded again."
        )
