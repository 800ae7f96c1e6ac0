"""The public surface of `emberd`: what programs import, call and catch; no accident changes it."""

import inspect
from typing import Any

import pytest

import emberd
from emberd import errors

INIT = (
    "(url: str | collections.abc.Sequence[str] | None = None, *,"
    " socket: str | pathlib.Path | None = None,"
    " token: str | None = None, timeout: float | None = None) -> None"
)
EMBED = (
    "(texts: collections.abc.Sequence[str], *, model: str | None = None,"
    " input_type: Optional[Literal['query', 'document']] = None, dimensions: int | None = None,"
    " truncate: bool = True, fingerprint: str | None = None,"
    " cache: bool = True, dtype: Optional[Literal['float', 'float16', 'int8', 'uint8', 'binary',"
    " 'ubinary']] = None,"
    " chunk: collections.abc.Mapping[str, typing.Any] | None = None)"
    " -> emberd.client.answers.Embeddings"
)
CHUNK = (
    "(texts: collections.abc.Sequence[str], *, size: int | None = None, overlap: int = 0,"
    " kind: Literal['text', 'markdown', 'code'] = 'text', language: str | None = None,"
    " model: str | None = None, input_type: Optional[Literal['query', 'document']] = None)"
    " -> emberd.client.answers.Chunks"
)
METHODS = {
    "chunk": CHUNK,
    "close": "() -> None",
    "embed": EMBED,
    "embed_sparse": (
        "(texts: collections.abc.Sequence[str], *, model: str | None = None,"
        " input_type: Optional[Literal['query', 'document']] = None, truncate: bool = True,"
        " fingerprint: str | None = None) -> emberd.client.answers.SparseEmbeddings"
    ),
    "health": "() -> dict[str, typing.Any]",
    "load": "(model: str | None = None) -> dict[str, typing.Any]",
    "models": "() -> list[dict[str, typing.Any]]",
    "rerank": (
        "(query: str, texts: collections.abc.Sequence[str], *, model: str | None = None,"
        " top_n: int | None = None, truncate: bool = True, cache: bool = True)"
        " -> emberd.client.answers.Ranking"
    ),
    "send": "(request: emberd.client.requests.Request[~T]) -> ~T",
    "unload": "(model: str | None = None) -> list[str]",
}


def test_names() -> None:
    assert emberd.__all__ == [
        "AsyncClient", "Chunk", "Chunks", "Client", "Embeddings", "Ranked", "Ranking",
        "SparseEmbeddings", "SparseVector", "Usage", "__version__",
    ]  # fmt: skip


def signature(function: Any) -> str:  # noqa: ANN401 - any callable
    """Return it without `self`."""
    whole = inspect.signature(function)
    rest = [each for name, each in whole.parameters.items() if name != "self"]
    return str(whole.replace(parameters=rest))


@pytest.mark.parametrize("client", [emberd.Client, emberd.AsyncClient])
def test_clients(client: type) -> None:
    methods = {
        name: signature(member)
        for name, member in vars(client).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }

    assert signature(client) == INIT
    assert methods == METHODS
    assert isinstance(vars(client)["address"], property)
    is_async = {inspect.iscoroutinefunction(getattr(client, name)) for name in METHODS}
    assert is_async == {client is emberd.AsyncClient}


def test_answers() -> None:
    assert list(inspect.signature(emberd.Embeddings).parameters) == [
        "vectors", "model", "fingerprint", "truncated", "usage", "chunks", "cached", "chunking",
    ]  # fmt: skip
    assert list(inspect.signature(emberd.SparseEmbeddings).parameters) == [
        "vectors", "model", "fingerprint", "truncated", "usage", "cached",
    ]  # fmt: skip
    assert list(inspect.signature(emberd.Chunks).parameters) == [
        "chunks", "size", "model", "fingerprint",
    ]  # fmt: skip
    assert list(inspect.signature(emberd.Chunk).parameters) == [
        "text", "start", "end", "start_utf16", "end_utf16", "tokens",
    ]  # fmt: skip
    assert list(inspect.signature(emberd.Usage).parameters) == ["tokens"]


def test_errors_that_programs_catch() -> None:
    """By class in Python, by code over HTTP."""
    names = {
        "BadOptionError", "ConfigError", "DeadlineError", "EmberdError",
        "FingerprintMismatchError", "NoServerError", "NoTextsError", "TextTooLongError",
        "TooLargeError", "UnauthorizedError", "UnavailableError", "UnknownModelError",
        "WrongShapeError",
    }  # fmt: skip

    assert all(issubclass(getattr(errors, name), errors.EmberdError) for name in names)
