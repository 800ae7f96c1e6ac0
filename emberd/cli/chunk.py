"""`emberd chunk`: one JSON line per chunk of a file; and the lines of `emberd embed --chunk`."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from emberd.cli.context import ModelName, Root
from emberd.errors import BadOptionError, NoTextsError
from emberd.spaces.chunks import GRAMMARS, Chunking, ChunkKind

if TYPE_CHECKING:
    from emberd.config.load import Config

MARKDOWN = (".md", ".markdown", ".mdx")


def chunk(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Files to cut; without any, stdin is one text."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Tokens of a chunk, at most; as many as the model takes."
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(metavar="N", min=0, help="Tokens that a chunk repeats of the one before.")
    ] = 0,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="text or markdown; by default, markdown for files named so (.md)."
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The files are code in this programming language."),
    ] = None,
    model: ModelName = None,
    # This command always prints JSON, but people and scripts pass `--json` anyway.
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = True,
) -> None:
    """Cut files into chunks that a model takes whole.

    Uses the running server; without one, loads the model just for this command.
    """
    del as_json
    _check(kind, language)
    root: Root = ctx.obj
    config = root.load()
    spec = config.catalog.find(model or config.settings.default, kinds=("embed", "sparse")).spec
    read = ((name, text, _kind(name, kind, language)) for name, text in _read(files))
    asked = (
        (name, text, Chunking(kind=found, language=language, size=size, overlap=overlap))
        for name, text, found in read
    )
    answers = _asked(config, spec.name, asked)
    for name, text, places in answers:
        for place in places:
            part = text[place["start"] : place["end"]]
            _write({"file": name, **place, "text": part})
        sys.stdout.flush()


def print_embedded(
    config: "Config",
    texts: Iterable[str],
    options: dict[str, Any],
    chunking: Chunking,
    *,
    late: bool,
    dtype: str | None,
) -> None:
    """Print a line for each chunk of each text, with its vector. White space has no chunks.

    `late`: the model reads each text whole.
    """
    import asyncio

    from emberd.client import clients, requests

    numbered = ((index, text) for index, text in enumerate(texts) if text.strip())
    server = clients.find(config)
    if not server:
        how = {"chunking": chunking, "spans": () if late else None, "dtype": dtype or "float"}
        asyncio.run(_embed_by_pool(config, numbered, options | how))
        return
    cut = {"size": chunking.size, "overlap": chunking.overlap, "late": late}
    options = options | ({"output_dtype": dtype} if dtype else {})
    for index, text in numbered:  # one by one: a long text may have all that a request can have
        answer = server.send(requests.embed_as_json([text], chunk=cut, **options))
        options["fingerprint"] = answer["fingerprint"]  # keep every line in the first one's space
        _print(index, answer["embeddings"], answer["chunks"], answer)


async def _embed_by_pool(
    config: "Config", numbered: Iterable[tuple[int, str]], options: dict[str, Any]
) -> None:
    from emberd.pool.chunks import embed_chunks
    from emberd.pool.manager import Pool
    from emberd.pool.request import EmbedRequest

    async with Pool(config) as pool:
        for index, text in numbered:
            request = EmbedRequest(texts=[text], **options)
            found = await embed_chunks(pool.embed, request, most=pool.limits.max_texts)
            options["fingerprint"] = found.answer.fingerprint
            vectors = json.loads(b"[%b]" % b",".join(found.answer.fragments))
            _print(index, vectors, json.loads(found.places), asdict(found.answer))


def _print(
    index: int,
    vectors: Iterable[list[float]],
    places: Iterable[Mapping[str, Any]],
    answer: Mapping[str, Any],
) -> None:
    same = {key: answer[key] for key in ("dimensions", "model", "fingerprint")}
    for vector, place in zip(vectors, places, strict=True):
        where = {key: value for key, value in place.items() if key != "text"}
        _write({"index": index, **where, "embedding": vector, **same})
    sys.stdout.flush()


def _write(row: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")


def _check(kind: str | None, language: str | None) -> None:
    if kind not in (None, "text", "markdown", "code"):
        raise BadOptionError(f"--kind: {kind!r} is neither text nor markdown.")
    if language is not None and language not in GRAMMARS:
        raise BadOptionError(
            f"--language: {language!r} is not known.", hint=f"Known are {', '.join(GRAMMARS)}."
        )
    if kind == "code" and language is None:
        raise BadOptionError("--kind code needs a language.", hint="Add --language NAME.")
    if language is not None and kind not in (None, "code"):
        raise BadOptionError(f"--language is of code, not of {kind}.", hint="Leave one out.")


def _kind(name: str, kind: str | None, language: str | None) -> ChunkKind:
    """Return what a file is."""
    if language:
        return "code"
    if kind:
        return cast("ChunkKind", kind)
    return "markdown" if name.lower().endswith(MARKDOWN) else "text"


def _read(files: list[Path] | None) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file."""
    if not files and sys.stdin.isatty():
        raise NoTextsError("No files given", hint="Try: emberd chunk notes.md")
    for name in [*map(str, files or ())] or ["-"]:
        try:
            data = Path(name).read_bytes() if files else sys.stdin.buffer.read()
            yield name, data.decode()
        except OSError as error:
            raise BadOptionError(f"{name} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise BadOptionError(f"{name} is not UTF-8.", hint="Convert it with iconv.") from None


Asked = tuple[str, str, Chunking]
Answered = tuple[str, str, list[dict[str, Any]]]


def _asked(config: "Config", model: str, asked: Iterable[Asked]) -> Iterable[Answered]:
    """Return the chunks of each text, by the server or without one."""
    import asyncio

    from emberd.client import clients

    server = clients.find(config)
    if not server:
        return asyncio.run(_by_pool(config, model, asked))

    def answers() -> Iterator[Answered]:
        for name, text, how in asked:
            found = server.chunk(
                [text],
                size=how.size,
                overlap=how.overlap,
                kind=how.kind,
                language=how.language,
                model=model,
            )
            places = [{**asdict(each), "text": ""} for each in found.chunks]
            yield name, text, places

    return answers()


async def _by_pool(config: "Config", model: str, asked: Iterable[Asked]) -> list[Answered]:
    from emberd.pool.manager import Pool
    from emberd.pool.request import EmbedRequest

    found = []
    async with Pool(config) as pool:
        for name, text, how in asked:
            request = EmbedRequest(texts=[text], model=model, description="chunks", chunking=how)
            answer = await pool.embed(request)
            found.append((name, text, json.loads(answer.fragments[0])))
    return found
