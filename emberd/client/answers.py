"""Every answer of a server as data, and how it is read from a response."""

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from emberd.dtypes import NUMPY, Dtype, columns
from emberd.ranking import Ranked
from emberd.units import parse_places

if TYPE_CHECKING:  # code that only asks for health needs no NumPy
    import httpx2
    import numpy as np
    from numpy.typing import NDArray

PLACE = ("start", "end", "start_utf16", "end_utf16", "tokens")

Object = dict[str, Any]


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

    `cached` is how many of the vectors the server found on its disk, and `chunking` how it cut the
    texts: passed as `chunk`, others are cut in the same way. None: the server does not say.
    """

    vectors: "NDArray[Any]"
    model: str
    fingerprint: str
    truncated: tuple[int, ...] = ()
    usage: Usage = Usage(0)
    chunks: tuple[Chunk, ...] | None = None
    cached: int | None = None
    chunking: Object | None = None


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
    cached: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """`results` are sorted, the most relevant text first; `truncated` as in `Embeddings`."""

    results: tuple[Ranked, ...]
    model: str
    fingerprint: str
    truncated: tuple[int, ...] = ()
    usage: Usage = Usage(0)


def read_object(response: "httpx2.Response") -> Object:
    """Return the answer as it is."""
    answer: Object = response.json()
    return answer


def read_models(response: "httpx2.Response") -> list[Any]:
    """Return the list of models without what is around it."""
    rows: list[Any] = response.json()["models"]
    return rows


def read_raw(response: "httpx2.Response") -> Embeddings:
    """Return vectors sent as raw numbers, with what the headers say of them."""
    said = response.headers
    return Embeddings(
        _matrix(
            response.content,
            rows=int(said["x-emberd-rows"]),
            dimensions=int(said["x-emberd-dimensions"]),
            dtype=said.get("x-emberd-dtype", "float"),
        ),
        model=said["x-emberd-model"],
        fingerprint=said["x-emberd-fingerprint"],
        truncated=parse_places(said["x-emberd-truncated"]),
        usage=Usage(int(said["x-emberd-tokens"])),
        cached=int(said["x-emberd-cached"]) if "x-emberd-cached" in said else None,
    )


def read_base64(response: "httpx2.Response") -> Embeddings:
    """Return vectors sent in base64, beside the chunks that they are of."""
    said = response.json()
    sent = said["embeddings"]
    return Embeddings(
        _matrix(
            b"".join(map(b64decode, sent)),
            rows=len(sent),
            dimensions=said["dimensions"],
            dtype=said.get("output_dtype", "float"),
        ),
        chunks=tuple(Chunk(**each) for each in said["chunks"]),
        chunking=said.get("chunking"),
        **_beside(said),
    )


def read_sparse(response: "httpx2.Response") -> SparseEmbeddings:
    """Return sparse vectors."""
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
    return SparseEmbeddings(vectors, **_beside(said))


def read_chunks(response: "httpx2.Response") -> Chunks:
    """Return the chunks of all texts in one row."""
    said = response.json()
    each = (
        Chunk(text=text, **{key: place[key] for key in PLACE})
        for text, places in enumerate(said["chunks"])
        for place in places
    )
    return Chunks(tuple(each), said["size"], said["model"], said["fingerprint"])


def read_ranking(response: "httpx2.Response") -> Ranking:
    """Return texts in their order."""
    said, headers = response.json(), response.headers
    return Ranking(
        tuple(Ranked(each["index"], each["relevance_score"]) for each in said["results"]),
        said["model"],
        headers["x-emberd-fingerprint"],
        tuple(said["truncated"]),
        Usage(said["usage"]["total_tokens"]),
    )


def _matrix(sent: bytes, *, rows: int, dimensions: int, dtype: str) -> "NDArray[Any]":
    """Return little-endian numbers as (N, D), writable and in this machine's byte order."""
    import numpy as np

    known = cast("Dtype", dtype)
    matrix = np.frombuffer(sent, NUMPY[known]).reshape(rows, columns(dimensions, known))
    return matrix.astype(matrix.dtype.newbyteorder("="))


def _beside(said: Object) -> Object:
    """Return the fields that all vectors in JSON have beside them."""
    return {
        "model": said["model"],
        "fingerprint": said["fingerprint"],
        "truncated": tuple(said["truncated"]),
        "usage": Usage(said["usage"]["tokens"]),
        "cached": said.get("cached"),
    }
