"""`emberd add`: propose an entry for a model from its own files, and write it once accepted."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from emberd.cli.context import AsJson, Root, print_problem, print_warning
from emberd.cli.models import pull_one, pull_sentences
from emberd.cli.progress import count_bytes, form_of
from emberd.cli.verify import leave_the_log, passes, show_checks, verify_one
from emberd.errors import BadOptionError, EmberdError, RequestError, UnknownModelError
from emberd.files import is_folder
from emberd.interrupts import is_interrupt
from emberd.registry.spec import POOLINGS, Kind, Precision
from emberd.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from emberd.config.load import Config
    from emberd.proposal.lines import Chosen
    from emberd.proposal.proposal import Proposal
    from emberd.registry.spec import ModelSpec, Pooling


KINDS_ADDED: tuple[Kind, ...] = ("embed", "rerank", "sparse")
DEFAULTS = {"rerank": "default_reranker", "sparse": "default_sparse"}


def _complete(of: "Sequence[str]") -> "Callable[[str], list[str]]":
    return lambda incomplete: [each for each in of if each.startswith(incomplete)]


def add(
    ctx: typer.Context,
    place: Annotated[
        str,
        typer.Argument(
            metavar="OWNER/NAME | FOLDER",
            help="A repository on the Hub, or a folder in the layout of one.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to call it; otherwise as the repository is."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="embed, rerank or sparse, if no file says which.",
            autocompletion=_complete(KINDS_ADDED),
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            metavar="POOLING",
            help="mean, cls or last, if no file says which.",
            autocompletion=_complete(POOLINGS),
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=3, help="Cut texts here, not where the files say."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="PRECISION",
            help="4bit, 8bit, bf16 or f32: precision of the weights.",
            autocompletion=_complete(get_args(Precision)),
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Read this branch, tag or commit of the repository."),
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Then make it the default, as `emberd use` does.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the entry unasked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a model of your own, from the Hub or a folder.

    Reads the model's own files and shows the entry for the config file, with the file that each
    line comes from. What no file says is asked for, never guessed; code that comes with a model is
    never run. If you accept, the entry is written, and the model is downloaded and checked. With
    --json and no --yes, only the proposal is printed.
    """
    if as_json and default:
        raise BadOptionError(
            "--default cannot be combined with --json.",
            hint="Run `emberd use NAME --yes --json` after it.",
        )
    root: Root = ctx.obj
    config = root.load()
    chosen = _chosen(kind, pooling, max_tokens, precision)
    proposal = _propose(config, place, name, revision, chosen)
    key = DEFAULTS.get(proposal.entry.get("kind", ""))
    if default and key:
        raise BadOptionError(
            "--default is for models that embed, and this one is"
            f" {'a re-ranker' if key == 'default_reranker' else 'a sparse one'}.",
            hint=f"Leave it out, then write `{key}: {proposal.name}` into {config.homes.config}.",
        )
    report = {**proposal.to_dict(), "file": str(config.homes.config), "status": "proposed"}
    if not as_json:
        _show(proposal)
    elif not yes:
        typer.echo(json.dumps(report))
        return
    _require_complete(proposal)
    _write(config, proposal, yes=yes)
    config = root.load()
    spec = config.catalog.get(proposal.name)
    if not as_json:
        typer.echo(f"{spec.name} is now in {config.homes.config}.")
    _tell_server(config)
    done = _pull_and_verify(config, spec, as_json=as_json)
    if as_json:
        typer.echo(json.dumps({**report, "status": "added", **done}))
    if not passes(done["checks"]):
        raise typer.Exit(1)
    if default:
        from emberd.cli.use import use

        use(ctx, spec.name, yes=yes)


def _chosen(
    kind: str | None, pooling: str | None, max_tokens: int | None, precision: str | None
) -> "Chosen":
    from emberd.proposal.lines import Chosen

    for option, value, of in (
        ("--kind", kind, KINDS_ADDED),
        ("--pooling", pooling, POOLINGS),
        ("--precision", precision, get_args(Precision)),
    ):
        if value is not None and value not in of:
            raise BadOptionError(f"{option}: {value!r} is none of {', '.join(of)}.")
    return Chosen(
        kind=cast("Kind | None", kind),
        pooling=cast("Pooling | None", pooling),
        max_tokens=max_tokens,
        precision=cast("Precision | None", precision),
    )


def _propose(
    config: "Config", named: str, name: str | None, revision: str | None, chosen: "Chosen"
) -> "Proposal":
    """Read the model's files. Raises EmberdError: there are none, or no entry would load."""
    from emberd.backends import plugins
    from emberd.proposal.place import find_place
    from emberd.proposal.proposal import propose, short_name

    usual = plugins.resolve("auto")
    if name is not None:
        _require_free(config, name)
    if name is None or "/" not in named:
        _require_new(config, named)
    found = find_place(named, revision, hub=config.homes.hub)
    if name is None:
        name = short_name(found.label)
        _require_free(config, name)
    return propose(found, name, chosen, usual_backend=usual)


def _find(config: "Config", name: str) -> "ModelSpec | None":
    try:
        return config.catalog.get(name)
    except UnknownModelError:
        return None


def _require_new(config: "Config", named: str) -> None:
    """Raise RequestError if there is already an entry with this repository, or called this."""
    there = _find(config, named)
    if there is None or is_folder(Path(named)):
        return
    if "/" in named:
        hint = f"Use it as `{there.name}`. To add it once more, name it: `--name NAME`."
    else:
        hint = (
            f"Nothing has to be added: `emberd pull {there.name}` gets it ready, and requests name"
            " it as their model. To add another one, say which repository (OWNER/NAME) or folder."
        )
    also = "" if named == there.name else f": it is {there.name}"
    raise RequestError(f"{named} is already among the models{also}.", hint=hint)


def _require_free(config: "Config", name: str) -> None:
    """Raise an error if a model cannot be called this, or one already is."""
    from emberd.config.load import MODEL_NAME

    if not MODEL_NAME.fullmatch(name):
        raise BadOptionError(
            f"--name: {name!r} may only contain letters, digits, dots, dashes and underscores."
        )
    there = _find(config, name)
    if there:
        alias = "" if there.name == name else f" (it means {there.name})"
        raise RequestError(
            f"There is already a model called {name}{alias}.",
            hint=f"Choose another name with --name, or edit models.{there.name} in"
            f" {config.homes.config}.",
        )


def _show(proposal: "Proposal") -> None:
    """Print the entry, what the card says, and what to know."""
    place, card = proposal.place, proposal.card
    facts = {
        "licence": card.licence,
        "languages": ", ".join(card.languages),
        "base model": ", ".join(card.base_models),
    }
    said = "; ".join(f"{what}: {value}" for what, value in facts.items() if value)
    typer.echo(f"{place.source}, {format_size(proposal.size_bytes)}")
    if said:
        typer.echo(f"Its card says: {said}")
    typer.echo(f"\n{proposal.as_yaml()}\n")
    for note in proposal.notes:
        typer.echo(f"Note: {note}")


def _require_complete(proposal: "Proposal") -> None:
    """Raise RequestError if something must still be stated."""
    if proposal.open:
        what = "; ".join(f"{each.key}: {each.why}" for each in proposal.open)
        options = " ".join(each.option for each in proposal.open)
        raise RequestError(
            f"The entry is not complete, and emberd does not guess. {what}.",
            hint=f"Look at the model's card, then add {options}.",
        )


def _write(config: "Config", proposal: "Proposal", *, yes: bool) -> None:
    """Write the entry if the user accepts it."""
    from emberd.config.edit import Edit
    from emberd.config.load import validated

    file = config.homes.config
    validated(file, proposal.name, proposal.entry)
    edit = Edit.of_model(file, proposal.name, proposal.entry, proposal.origins)
    if not yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise RequestError(
                "Nothing was written, because nobody can be asked here.",
                hint="To accept this entry, run"
                f" `{shlex.join(['emberd', *sys.argv[1:], '--yes'])}`.",
            )
        typer.confirm(f"Write it into {file}, then pull and check the model?", abort=True)
    edit.commit()


def _tell_server(config: "Config") -> None:
    """Wait until the running server knows the model too; a failure is a warning."""
    from emberd.client import clients, requests
    from emberd.client.finding import require_file

    try:
        server = clients.find(config)
        if server:
            answer = server.send(requests.reload())
            require_file(server.address, answer["file"], config.homes.config)
    except EmberdError as error:
        print_warning(f"The running server does not know it yet. {error.message}")


def _pull_and_verify(config: "Config", spec: "ModelSpec", *, as_json: bool) -> dict[str, Any]:
    """Download the model and run the checks of `emberd verify`; return what `--json` says."""
    form = form_of(as_json=as_json)
    try:
        with count_bytes(spec.name, form) as report:
            pulled = pull_one(config, spec.name, None, update=False, report=report)
        if not as_json:
            typer.echo(pull_sentences(pulled))
        leave_the_log()
        checks = [*verify_one(config, spec, full=False, form=form)]
    except EmberdError as error:
        raise type(error)(
            f"{spec.name} is in {config.homes.config}, but: {error.message}",
            hint=error.hint or f"Run `emberd pull {spec.name}`.",
        ) from None
    except BaseException as error:
        if not is_interrupt(error):
            raise
        print_problem(
            "stopped", f"Stopped by Ctrl-C; {spec.name} is in {config.homes.config}.",
            f"To continue, run `emberd pull {spec.name}`.",
        )  # fmt: skip
        raise KeyboardInterrupt from None
    if not as_json:
        show_checks(checks)
    return {"pulled": pulled, "checks": checks}
