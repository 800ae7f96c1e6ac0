"""`emberd embed`: one JSON line per text, from the running server or without one."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from emberd.cli.chunk import print_embedded
from emberd.cli.context import ModelName, Root, print_warning
from emberd.cli.texts import given, in_batches
from emberd.dtypes import NUMPY
from emberd.errors import BadOptionError
from emberd.spaces.chunks import Chunking
from emberd.units import format_places

if TYPE_CHECKING:
    from emberd.client.clients import Client
    from emberd.config.load import Config
    from emberd.registry.spec import InputType, Kind


def embed(
    ctx: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="Texts to embed; without any, each line of stdin is one."
        ),
    ] = None,
    model: ModelName = None,
    input_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="query or document, for models that distinguish them."),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(metavar="N", help="Return shorter vectors, if the model supports it."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="What the numbers are: float, float16, int8, uint8, binary or ubinary.",
        ),
    ] = None,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl",
            help='Read stdin as JSON lines, each a "text" or {"text": "..."}, which may contain'
            " line breaks.",
        ),
    ] = False,
    chunk: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Cut texts into chunks of at most N tokens, with a line for each; 0: as many as"
            " the model takes.",
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(metavar="N", min=0, help="Tokens that a chunk repeats of the one before.")
    ] = 0,
    late: Annotated[
        bool,
        typer.Option(
            "--late",
            help="Late chunking: the model reads each text whole, and the vector of a chunk is the"
            " mean of its own tokens.",
        ),
    ] = False,
    # This command always prints JSON, but people and scripts pass `--json` anyway.
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = True,
) -> None:
    """Turn texts into vectors, one line of JSON per text.

    Uses the running server; without one, loads the model just for this command.
    """
    from emberd.client import clients

    del as_json
    if input_type not in (None, "query", "document"):
        raise BadOptionError(f"--input-type: {input_type!r} is neither query nor document.")
    if dtype is not None and dtype not in NUMPY:
        raise BadOptionError(f"--dtype: {dtype!r} is none of {', '.join(NUMPY)}.")
    if (overlap or late) and chunk is None:
        option = "--late" if late else "--overlap"
        raise BadOptionError(f"{option} is of chunks.", hint="Add --chunk N.")
    source = given(texts, jsonl=jsonl, example='emberd embed "some text"')
    root: Root = ctx.obj
    config = root.load()
    # This configuration's default, not that of whatever server answers.
    asked = cast("InputType | None", input_type)
    kinds: tuple[Kind, ...] = ("embed", "sparse") if chunk is None else ("embed",)
    named = config.catalog.find(model or config.settings.default, asked, kinds=kinds)
    options: dict[str, Any] = {
        "model": named.spec.name, "input_type": named.role, "dimensions": dimensions
    }  # fmt: skip
    if chunk is not None:
        chunking = Chunking(size=chunk or None, overlap=overlap)
        print_embedded(config, source, options, chunking, late=late, dtype=dtype)
        return
    batches = in_batches(source)
    server = clients.find(config)
    with _progress(len(texts) if texts else None) as report:
        if server:
            asked_dtype = {"output_dtype": dtype} if dtype else {}
            _by_server(server, batches, options | asked_dtype, report)
        else:
            import asyncio

            asyncio.run(_by_pool(config, batches, options | {"dtype": dtype or "float"}, report))


class Printer:
    """Prints the answers of batches one after the other, and on stderr which texts were cut.

    Args:
        report: called with the number of texts done.
        max_tokens: returns how many tokens of a text the model reads; called once some were cut.
    """

    def __init__(self, report: Callable[[int], None], max_tokens: Callable[[], int]) -> None:
        self._report = report
        self._max_tokens = max_tokens
        self._done = 0

    def print(self, vectors: Sequence[object], answer: Mapping[str, Any]) -> None:
        """Print one batch; `answer` has the other fields of the answer to `POST /embed`.

        A sparse vector is an object with `indices` and `values`.
        """
        cut = set(answer["truncated"])
        same = {key: answer[key] for key in ("dimensions", "model", "fingerprint")}
        for place, vector in enumerate(vectors):
            index = self._done + place
            given = vector if isinstance(vector, dict) else {"embedding": vector}
            row = {"index": index, **given, **same, "truncated": place in cut}
            sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")
        sys.stdout.flush()
        if cut:
            places = format_places(self._done + place for place in sorted(cut)).replace(",", ", ")
            which = f"Text {places} was" if len(cut) == 1 else f"Texts {places} were"
            print_warning(
                f"{which} cut after {self._max_tokens()} tokens, the most that {answer['model']}"
                " reads; the rest is not in the vector."
            )
        self._done += len(vectors)
        self._report(self._done)


def _by_server(
    server: "Client",
    batches: Iterable[list[str]],
    options: dict[str, Any],
    report: Callable[[int], None],
) -> None:
    from emberd.client import requests

    def max_tokens() -> int:
        rows = server.models()
        return next(int(row["max_tokens"]) for row in rows if row["name"] == options["model"])

    printer = Printer(report, max_tokens)
    for batch in batches:
        answer = server.send(requests.embed_as_json(batch, **options))
        options["fingerprint"] = answer["fingerprint"]  # keep every line in the first one's space
        printer.print(answer.get("sparse") or answer["embeddings"], answer)


async def _by_pool(
    config: "Config",
    batches: Iterable[list[str]],
    options: dict[str, Any],
    report: Callable[[int], None],
) -> None:
    from emberd.pool.manager import Pool
    from emberd.pool.request import EmbedRequest

    async with Pool(config) as pool:
        printer = Printer(report, lambda: pool.status(options["model"]).max_tokens or 0)
        for batch in batches:
            request = EmbedRequest(texts=batch, takes=("embed", "sparse"), **options)
            answer = await pool.embed(request)
            options["fingerprint"] = answer.fingerprint
            printer.print([json.loads(vector) for vector in answer.fragments], asdict(answer))


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many texts are done, unless the vectors are printed there."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import (
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(), TextColumn("texts"), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    # stdout is not a terminal here: the output must go there, not above the bar.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        bar = bars.add_task("", total=total, rate="")

        def report(done: int) -> None:
            speed = bars.tasks[bar].speed
            bars.update(bar, completed=done, rate=f"{speed:.0f}/s" if speed else "")

        yield report
