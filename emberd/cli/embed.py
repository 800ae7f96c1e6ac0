"""`emberd embed`: texts to vectors, one JSON line each, by a running server or without one."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import Root
from emberd.errors import BadOptionError, NoTextsError

if TYPE_CHECKING:
    from emberd.config.load import Config

TEXTS_A_REQUEST = 256


def embed(
    ctx: typer.Context,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without them, lines of stdin.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name or alias.")] = None,
    input_type: Annotated[str | None, typer.Option(help="query or document.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="A smaller size of the model.")] = None,
    # `--json` is what this command prints anyway; people and scripts pass it all the same.
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = True,
) -> None:
    """Embed texts; prints one JSON line per text. Uses a running server, or loads by itself."""
    from emberd.cli import client

    del as_json
    if input_type not in (None, "query", "document"):
        raise BadOptionError(f"--input-type: {input_type!r} is neither query nor document.")
    if not texts and sys.stdin.isatty():
        raise NoTextsError("No texts provided", hint='Try: emberd embed "some text"')
    root: Root = ctx.obj
    config = root.load()
    # This configuration's default, not that of whatever server answers.
    name = config.catalog.get(model or config.settings.default).name
    options: dict[str, Any] = {"model": name, "input_type": input_type, "dimensions": dimensions}
    batches = _batches(_checked(texts) if texts else _lines())
    server = client.find(config)
    if server:
        _by_server(server.post, batches, options)
    else:
        asyncio.run(_by_pool(config, batches, options))


def _lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise BadOptionError("stdin is not UTF-8.", hint="Convert it with iconv.") from None


def _checked(texts: list[str]) -> list[str]:
    """Refuse arguments that are not UTF-8; Python lets their bytes through as half characters."""
    for index, text in enumerate(texts):
        if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):
            raise BadOptionError(f"Text {index} is not UTF-8.", hint="Convert it with iconv.")
    return texts


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, TEXTS_A_REQUEST)):
        yield batch


def _by_server(
    post: Callable[[str, dict[str, Any]], dict[str, Any]],
    batches: Iterable[list[str]],
    options: dict[str, Any],
) -> None:
    index = 0
    for batch in batches:
        answer = post("/embed", {"texts": batch, **options})
        options["fingerprint"] = answer["fingerprint"]  # all lines are of the space of the first
        for vector in answer["embeddings"]:
            _print_line(index, vector, answer)
            index += 1


async def _by_pool(config: "Config", batches: Iterable[list[str]], options: dict[str, Any]) -> None:
    from emberd.pool.manager import EmbedRequest, Pool

    index = 0
    async with Pool(config) as pool:
        for batch in batches:
            answer = await pool.embed(EmbedRequest(texts=batch, **options))
            options["fingerprint"] = answer.fingerprint
            for fragment in answer.fragments:
                _print_line(index, json.loads(fragment), asdict(answer))
                index += 1


def _print_line(index: int, vector: list[float], answer: dict[str, Any]) -> None:
    line = {
        "index": index,
        "embedding": vector,
        "dimensions": answer["dimensions"],
        "model": answer["model"],
        "fingerprint": answer["fingerprint"],
    }
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()
