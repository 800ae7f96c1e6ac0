"""Every request to a server, built without a network.

A `Request` is data; `Client` and `AsyncClient` send it and hand the response to `Request.read`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from emberd.client import answers, joined
from emberd.client.answers import Chunks, Embeddings, Object, Ranking, SparseEmbeddings
from emberd.dtypes import Dtype
from emberd.errors import NoServerError, WrongShapeError, from_code
from emberd.spaces.chunks import ChunkKind

if TYPE_CHECKING:
    import httpx2

JSON = {"Content-Type": "application/json"}
RAW = {"Accept": "application/octet-stream"}

InputType = Literal["query", "document"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Division(Generic[T]):
    """How to divide a request by its texts: `make` asks for some, `join` puts answers together."""

    texts: Sequence[str]
    make: "Callable[[Sequence[str]], Request[T]]"
    join: Callable[[Sequence[int], Sequence[T]], T]


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request to the server. `parse` turns its response into the answer.

    The rest is for several servers. `space` is what decides the space of the vectors, as far as the
    request says it, the model first; `states_space`: the caller expects a fingerprint.
    `is_for_all`: each of the servers has to get it.
    """

    method: Literal["GET", "POST"]
    path: str
    parse: "Callable[[httpx2.Response], T]"
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    division: Division[T] | None = None
    space: tuple[object, ...] | None = None
    states_space: bool = False
    is_for_all: bool = False

    def divided(self, most: int) -> "list[tuple[int, Request[T]]]":
        """Return requests for parts of about the same size, each with the place of its first text.

        Without a division, or with no more than `most` texts, it is this request.
        """
        if self.division is None or len(self.division.texts) <= most:
            return [(0, self)]
        texts = self.division.texts
        count = math.ceil(len(texts) / most)
        places = [number * len(texts) // count for number in range(count + 1)]
        return [(start, self.division.make(texts[start:end])) for start, end in pairwise(places)]

    def halves(self) -> "list[tuple[int, Request[T]]]":
        """Return requests for its two halves; nothing if it cannot be divided."""
        count = len(self.division.texts) if self.division else 0
        return self.divided(math.ceil(count / 2)) if count > 1 else []

    def joined(self, answers: Sequence[tuple[int, T]]) -> T:
        """Return the answers of its parts as one."""
        if len(answers) == 1:
            return answers[0][1]
        assert self.division  # there is only one part without
        return self.division.join(*zip(*answers, strict=True))

    def read(self, response: "httpx2.Response") -> T:
        """Return the answer.

        Raises:
            EmberdError: the server's error, as the class that it raised.
            NoServerError: something answered that is not emberd.
        """
        try:
            if response.is_success:
                return self.parse(response)
            error = response.json()
            refused = from_code(error["code"], error["detail"], error["hint"])
        except (ValueError, KeyError, TypeError):
            raise NoServerError(
                f"The server answered with status {response.status_code}, but it is not emberd.",
                hint="Check the address.",
            ) from None
        raise refused


def embed(  # noqa: PLR0913 - the options of a request
    texts: Sequence[str],
    *,
    model: str | None = None,
    input_type: InputType | None = None,
    dimensions: int | None = None,
    truncate: bool = True,
    fingerprint: str | None = None,
    cache: bool = True,
    dtype: Dtype | None = None,
    chunk: Mapping[str, Any] | None = None,
) -> Request[Embeddings]:
    """Ask for vectors as raw numbers, or in base64 with their chunks. Raises WrongShapeError."""
    options = {
        "model": model,
        "input_type": input_type,
        "dimensions": dimensions,
        "fingerprint": fingerprint,
        "output_dtype": dtype,
        "cache": None if cache else False,
    }
    given = {key: value for key, value in options.items() if value is not None}
    listed = _listed(texts)
    body: Object = {"texts": listed, "truncate": truncate, **given}
    again = partial(
        embed, model=model, input_type=input_type, dimensions=dimensions, truncate=truncate,
        fingerprint=fingerprint, cache=cache, dtype=dtype, chunk=chunk,
    )  # fmt: skip
    parse, headers = answers.read_raw, RAW
    if chunk is not None:
        body |= {"chunk": chunk, "encoding": "base64"}
        parse, headers = answers.read_base64, {}
    return _post(
        "/embed",
        body,
        parse,
        headers,
        division=Division(listed, again, joined.join_embeddings),
        space=(model, "embed", dimensions, dtype, bool((chunk or {}).get("late"))),
        states_space=fingerprint is not None,
    )


def chunk(
    texts: Sequence[str],
    *,
    size: int | None = None,
    overlap: int = 0,
    kind: ChunkKind = "text",
    language: str | None = None,
    model: str | None = None,
    input_type: InputType | None = None,
) -> Request[Chunks]:
    """Ask where to cut texts. Raises WrongShapeError."""
    listed = _listed(texts)
    body = {
        "texts": listed,
        "size": size,
        "overlap": overlap,
        "kind": kind,
        "language": language,
        "model": model,
        "input_type": input_type,
    }
    again = partial(
        chunk, size=size, overlap=overlap, kind=kind, language=language, model=model,
        input_type=input_type,
    )  # fmt: skip
    return _post(
        "/chunk",
        body,
        answers.read_chunks,
        division=Division(listed, again, joined.join_chunks),
        space=(model, "chunk"),
    )


def embed_as_json(texts: Sequence[str], **options: object) -> Request[Object]:
    """Ask for vectors as JSON, the answer of `POST /embed`, with the options that it takes."""
    return _post("/embed", {"texts": texts, **options}, answers.read_object)


def embed_sparse(
    texts: Sequence[str],
    *,
    model: str | None = None,
    input_type: InputType | None = None,
    truncate: bool = True,
    fingerprint: str | None = None,
) -> Request[SparseEmbeddings]:
    """Ask for sparse vectors. Raises WrongShapeError."""
    options = {"model": model, "input_type": input_type, "fingerprint": fingerprint}
    listed = _listed(texts)
    body = {"texts": listed, "kind": "sparse", "truncate": truncate, **options}
    again = partial(
        embed_sparse, model=model, input_type=input_type, truncate=truncate, fingerprint=fingerprint
    )
    return _post(
        "/embed",
        body,
        answers.read_sparse,
        division=Division(listed, again, joined.join_sparse),
        space=(model, "sparse"),
        states_space=fingerprint is not None,
    )


def rerank(
    query: str,
    texts: Sequence[str],
    *,
    model: str | None = None,
    top_n: int | None = None,
    truncate: bool = True,
    cache: bool = True,
) -> Request[Ranking]:
    """Ask for the order of texts. Raises WrongShapeError."""
    body = {
        "query": query,
        "documents": _listed(texts),
        "model": model,
        "top_n": top_n,
        "truncation": truncate,
        "return_documents": False,
        "raw_scores": True,
    }
    anew = {} if cache else {"X-Emberd-Cache": "false"}
    return _post("/v1/rerank", body, answers.read_ranking, anew, space=(model, "rerank"))


def health() -> Request[Object]:
    """Ask for the answer of `GET /health`."""
    return Request("GET", "/health", answers.read_object)


def models() -> Request[list[Object]]:
    """Ask for a row for every entry of the registry."""
    return Request("GET", "/models", answers.read_models)


def load(model: str | None = None) -> Request[Object]:
    """Load a model, by default the default model; its row comes once it is ready."""
    return _post("/load", {"model": model}, answers.read_object, is_for_all=True)


def unload(model: str | None = None) -> Request[list[str]]:
    """Unload a model, by default all of them; the names come once the memory is back."""
    return _post("/unload", {"model": model}, answers.read_models, is_for_all=True)


def reload() -> Request[Object]:
    """Have the config file read again; the changes come once they are in force."""
    return _post("/reload", {}, answers.read_object, is_for_all=True)


def preview_reload() -> Request[Object]:
    """Ask what `reload` would change."""
    return Request("GET", "/reload", answers.read_object)


def _listed(texts: Sequence[str]) -> list[str]:
    """Return texts as a list. Raises WrongShapeError for a string, which is a sequence, too."""
    if isinstance(texts, str):
        raise WrongShapeError("texts is a string, not a list.", hint="Pass a list: [text].")
    return list(texts)


def _post(
    path: str,
    body: Mapping[str, Any],
    parse: "Callable[[httpx2.Response], T]",
    headers: Mapping[str, str] | None = None,
    **several: Any,  # noqa: ANN401 - what a `Request` says for several servers
) -> Request[T]:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise _half_a_character(body) from None
    return Request("POST", path, parse, content, {**JSON, **(headers or {})}, **several)


def _half_a_character(body: Mapping[str, Any]) -> WrongShapeError:
    """Return the server's own error for a text that cannot be encoded as UTF-8."""
    wrong = (
        f"{key}.{index}"
        for key in ("texts", "documents")
        for index, text in enumerate(body.get(key, ()))
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text)
    )
    place = next(wrong, "the body")
    return WrongShapeError(
        f"{place}: contains half of a surrogate pair, which is not a character.",
        hint="The text was cut inside a character. Cut it elsewhere, or remove that half.",
        field=place,
    )
