"""`emberd compare`: what another model or a re-ranker would change on the user's own texts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emberd.cli.context import AsJson, Root, complete_model, complete_store
from emberd.cli.migrate import Kind, Options, open_ref
from emberd.cli.progress import form_of, say_steps
from emberd.cli.verify import leave_the_log
from emberd.errors import BadOptionError

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.migrate.store_ref import StoreRef


def compare(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="The model in use, then others to compare with it.",
            autocompletion=complete_model,
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Compare on the texts of this vector store: a file, a folder, or a name under"
            " `stores:`.",
            autocompletion=complete_store,
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Or on these: a text per line, or .jsonl with {"text": "..."}.'
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What to search for, as the texts; without it, each text is searched for among"
            " the others.",
        ),
    ] = None,
    relevant: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Which texts answer which query (TREC's qrels or BEIR's TSV), to tell which"
            " model is better.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Also have this re-ranker sort what the first model finds.",
            autocompletion=complete_model,
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Texts to compare on, drawn by lot, or `all`; by default 2000, or all with"
            " --relevant.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the figures into this file.")
    ] = None,
    no_examples: Annotated[
        bool, typer.Option("--no-examples", help="Print none of the texts, only figures.")
    ] = False,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Measure what another model would change on your own texts.

    A store is only read. Uses the running server; without one, loads the models just for this
    command.
    """
    from emberd.compare.comparison import SAMPLE, Wanted, to_dict
    from emberd.compare.comparison import compare as compare_models
    from emberd.migrate.embedding import open_embedder

    _check_picture(picture)
    config, source = _source(ctx, store, texts, kind, options)
    wanted = Wanted(
        models=models, source=source, reranker=rerank, queries=queries, relevant=relevant,
        sample=_sample(sample, None if relevant else SAMPLE),
    )  # fmt: skip
    with open_embedder(config) as embedder:
        found = compare_models(config, wanted, embedder, say_steps(form_of(as_json=as_json)))
    row = to_dict(found, examples=not no_examples)
    if as_json:
        typer.echo(json.dumps(row))
    else:
        from emberd.cli.compare_report import show_comparison

        show_comparison(row, source if isinstance(source, Path) else Path(source.name))
    if picture:
        _draw(picture, row)


def _source(
    ctx: typer.Context,
    store: str | None,
    texts: Path | None,
    kind: str | None,
    options: list[str] | None,
) -> "tuple[Config, Path | StoreRef]":
    if (store is None) == (texts is None):
        raise BadOptionError(
            "Compare on what? Give either --store or --texts.",
            hint="For example: emberd compare minilm bge-small --texts lines.txt",
        )
    if store is not None:
        return open_ref(ctx, store, kind, options)
    if kind or options:
        raise BadOptionError("--kind and --option say how to read a --store, which is not given.")
    assert texts
    root: Root = ctx.obj
    config = root.load()
    leave_the_log()
    return config, texts


def _sample(text: str | None, default: int | None) -> int | None:
    if text is None or text == "all":
        return default if text is None else None
    if not text.isdecimal() or not int(text):
        raise BadOptionError(f"--sample {text}: expected a number of texts, or `all`.")
    return int(text)


def _check_picture(path: Path | None) -> None:
    """Fail now, not after minutes of measuring."""
    if path and not path.absolute().parent.is_dir():
        raise BadOptionError(f"There is no folder {path.absolute().parent}.")


def _draw(path: Path, row: "dict[str, object]") -> None:
    from emberd.compare.picture import draw
    from emberd.replacing import replace_file

    try:
        replace_file(path, draw(row).encode(), mode=0o644)
    except OSError as error:
        raise BadOptionError(f"{path} cannot be written: {error.strerror}.") from None
