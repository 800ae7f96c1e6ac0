"""Every request to a server: built here, and its answer parsed here, without a network.

A `Request` is data; `Client` and `AsyncClient` send it and hand the response to `Request.read`.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from emberd.dtypes import NUMPY, Dtype, columns
from emberd.errors import NoServerError, WrongShapeError, from_code
from emberd.ranking import Ranked
from emberd.spaces.chunks import ChunkKind
from emberd.units import parse_places

if TYPE_CHECKING:  # code that only asks for health needs no NumPy
    import httpx2
    import numpy as np
    from numpy.typing import NDArray

JSON = {"Content-Type": "application/json"}
PLACE = ("start", "end", "start_utf16", "end_utf16", "tokens")
RAW = {"Accept": "application/octet-stream"}

InputType = Literal["query", "document"]
Object = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost: the tokens that the model processed, after cutting, with its prompt."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a text: `text` is the place of the text among those that were sent.

    `start` and `end` count characters, so that `texts[text][start:end]` is the chunk;
    `start_utf16` and `end_utf16` count UTF-16 units. `tokens` is without special ones.
    """

    text: int
    start: int
    end: int
    start_utf16: int
    end_utf16: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """`chunks` are those of all texts, in their order; `size` is the most tokens of one."""

    chunks: tuple[Chunk, ...]
    size: int
    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """`vectors` is (N, D), writable, in the order of the texts: float32, or the dtype asked for.

    `binary` and `ubinary` are (N, D / 8), int8 and uint8, with the signs of 8 numbers in each byte.
    If chunks were asked for, there is one for each of `chunks`, and they count as texts.

    `truncated` has the indices of the texts that were cut because they have more tokens than the
    model takes: their vectors do not cover what was cut off.
    """

    vectors: "NDArray[Any]"
    model: str
    fingerprint: str
    truncated: tuple[int, ...] = ()
    usage: Usage = Usage(0)
    chunks: tuple[Chunk, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """What is not 0 in a vector of `dimensions` numbers, one for each entry of a vocabulary.

    `indices` is int32, ascending; `values` is float32, of the same length, which may be 0.
    """

    indices: "NDArray[np.int32]"
    values: "NDArray[np.float32]"
    dimensions: int

    def dot(self, other: "SparseVector") -> float:
        """Return the inner product, which is how a query and a text are compared."""
        import numpy as np

        _, mine, theirs = np.intersect1d(
            self.indices, other.indices, assume_unique=True, return_indices=True
        )
        return float(self.values[mine] @ other.values[theirs])


@dataclass(frozen=True, slots=True)
class SparseEmbeddings:
    """`vectors` in the order of the texts; the others as in `Embeddings`."""

    vectors: "tuple[SparseVector, ...]"
    model: str
    fingerprint: str
    truncated: tuple[int, ...] = ()
    usage: Usage = Usage(0)


@dataclass(frozen=True, slots=True)
class Ranking:
    """`results` are sorted, the most relevant text first; `truncated` as in `Embeddings`."""

    results: tuple[Ranked, ...]
    model: str
    fingerprint: str
    truncated: tuple[int, ...] = ()
    usage: Usage = Usage(0)


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request to the server. `parse` turns its response into the answer."""

    method: Literal["GET", "POST"]
    path: str
    parse: "Callable[[httpx2.Response], T]"
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

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
    if isinstance(texts, str):  # a string is a sequence, too
        raise WrongShapeError("texts is a string, not a list.", hint="Pass a list: [text].")
    options = {
        "model": model,
        "input_type": input_type,
        "dimensions": dimensions,
        "fingerprint": fingerprint,
        "output_dtype": dtype,
        "cache": None if cache else False,
    }
    given = {key: value for key, value in options.items() if value is not None}
    body: Object = {"texts": list(texts), "truncate": truncate, **given}
    if chunk is None:
        return _post("/embed", body, _embeddings, RAW)
    body |= {"chunk": chunk, "encoding": "base64"}
    return _post("/embed", body, _embeddings_of_chunks)


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
    if isinstance(texts, str):
        raise WrongShapeError("texts is a string, not a list.", hint="Pass a list: [text].")
    body = {
        "texts": list(texts),
        "size": size,
        "overlap": overlap,
        "kind": kind,
        "language": language,
        "model": model,
        "input_type": input_type,
    }
    return _post("/chunk", body, _chunks)


def embed_as_json(texts: Sequence[str], **options: object) -> Request[Object]:
    """Ask for vectors as JSON, the answer of `POST /embed`, with the options that it takes."""
    return _post("/embed", {"texts": texts, **options}, _object)


def embed_sparse(
    texts: Sequence[str],
    *,
    model: str | None = None,
    input_type: InputType | None = None,
    truncate: bool = True,
    fingerprint: str | None = None,
) -> Request[SparseEmbeddings]:
    """Ask for sparse vectors. Raises WrongShapeError."""
    if isinstance(texts, str):
        raise WrongShapeError("texts is a string, not a list.", hint="Pass a list: [text].")
    options = {"model": model, "input_type": input_type, "fingerprint": fingerprint}
    body = {"texts": list(texts), "kind": "sparse", "truncate": truncate, **options}
    return _post("/embed", body, _sparse_embeddings)


def rerank(
    query: str,
    texts: Sequence[str],
    *,
    model: str | None = None,
    top_n: int | None = None,
    truncate: bool = True,
) -> Request[Ranking]:
    """Ask for the order of texts. Raises WrongShapeError."""
    if isinstance(texts, str):
        raise WrongShapeError("texts is a string, not a list.", hint="Pass a list: [text].")
    body = {
        "query": query,
        "documents": list(texts),
        "model": model,
        "top_n": top_n,
        "truncation": truncate,
        "return_documents": False,
        "raw_scores": True,
    }
    return _post("/v1/rerank", body, _ranking)


def health() -> Request[Object]:
    """Ask for the answer of `GET /health`."""
    return Request("GET", "/health", _object)


def models() -> Request[list[Object]]:
    """Ask for a row for every entry of the registry."""
    return Request("GET", "/models", _models)


def load(model: str | None = None) -> Request[Object]:
    """Load a model, by default the default model; its row comes once it is ready."""
    return _post("/load", {"model": model}, _object)


def unload(model: str | None = None) -> Request[list[str]]:
    """Unload a model, by default all of them; the names come once the memory is back."""
    return _post("/unload", {"model": model}, _models)


def reload() -> Request[Object]:
    """Have the config file read again; the changes come once they are in force."""
    return _post("/reload", {}, _object)


def preview_reload() -> Request[Object]:
    """Ask what `reload` would change."""
    return Request("GET", "/reload", _object)


def _post(
    path: str,
    body: Mapping[str, Any],
    parse: "Callable[[httpx2.Response], T]",
    headers: Mapping[str, str] | None = None,
) -> Request[T]:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise _half_a_character(body) from None
    return Request("POST", path, parse, content, {**JSON, **(headers or {})})


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


def _object(response: "httpx2.Response") -> Object:
    answer: Object = response.json()
    return answer


def _models(response: "httpx2.Response") -> list[Any]:
    rows: list[Any] = response.json()["models"]
    return rows


def _embeddings(response: "httpx2.Response") -> Embeddings:
    import numpy as np

    headers = response.headers
    dtype = cast("Dtype", headers.get("x-emberd-dtype", "float"))
    shape = int(headers["x-emberd-rows"]), columns(int(headers["x-emberd-dimensions"]), dtype)
    sent = np.frombuffer(response.content, NUMPY[dtype]).reshape(shape)
    vectors = sent.astype(sent.dtype.newbyteorder("="))
    return Embeddings(
        vectors,
        headers["x-emberd-model"],
        headers["x-emberd-fingerprint"],
        parse_places(headers["x-emberd-truncated"]),
        Usage(int(headers["x-emberd-tokens"])),
    )


def _embeddings_of_chunks(response: "httpx2.Response") -> Embeddings:
    import numpy as np

    said = response.json()
    raw = b"".join(map(b64decode, said["embeddings"]))
    dtype = cast("Dtype", said.get("output_dtype", "float"))
    sent = np.frombuffer(raw, NUMPY[dtype]).reshape(-1, columns(said["dimensions"], dtype))
    vectors = sent.astype(sent.dtype.newbyteorder("="))
    return Embeddings(
        vectors,
        said["model"],
        said["fingerprint"],
        tuple(said["truncated"]),
        Usage(said["usage"]["tokens"]),
        tuple(Chunk(**each) for each in said["chunks"]),
    )


def _chunks(response: "httpx2.Response") -> Chunks:
    said = response.json()
    each = (
        Chunk(text=text, **{key: place[key] for key in PLACE})
        for text, places in enumerate(said["chunks"])
        for place in places
    )
    return Chunks(tuple(each), said["size"], said["model"], said["fingerprint"])


def _sparse_embeddings(response: "httpx2.Response") -> SparseEmbeddings:
    import numpy as np

    said = response.json()
    vectors = tuple(
        SparseVector(
            np.array(each["indices"], np.int32),
            np.array(each["values"], np.float32),
            said["dimensions"],
        )
        for each in said["sparse"]
    )
    truncated, usage = tuple(said["truncated"]), Usage(said["usage"]["tokens"])
    return SparseEmbeddings(vectors, said["model"], said["fingerprint"], truncated, usage)


def _ranking(response: "httpx2.Response") -> Ranking:
    said, headers = response.json(), response.headers
    return Ranking(
        tuple(Ranked(each["index"], each["relevance_score"]) for each in said["results"]),
        said["model"],
        headers["x-emberd-fingerprint"],
        tuple(said["truncated"]),
        Usage(said["usage"]["total_tokens"]),
    )
