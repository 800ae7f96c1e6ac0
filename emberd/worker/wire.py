"""Frames between server and worker: two sizes, a JSON header, and an opaque payload.

No pickle and no NumPy: the server passes encoded vectors on without looking inside. A frame is two
big-endian uint32 (bytes of header, bytes of payload), the header
`{"frame": name, "fields": {...}}`, and the payload.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import BufferedIOBase
from typing import Any, BinaryIO, Literal, get_args

import orjson

from emberd.dtypes import Dtype
from emberd.spaces.chunks import ChunkKind

PREFIX = struct.Struct(">II")
MAX_HEADER_BYTES = 257 * 2**20  # the texts of the largest body with prompts; JSON gets no longer
MAX_PAYLOAD_BYTES = 2**31
TOKENIZED_AT_ONCE = 1  # `Tokenize` requests that a worker works on
CHUNKED_AT_ONCE = 2  # so that a short text need not wait for a book

Encoding = Literal["json", "base64", "raw", "steps"]
"""How a vector is sent; `steps` asks for none, but for those of int8; see `worker.steps`."""

Span = Sequence[int]  # where something begins, and where it ends

BETWEEN = b"\n"  # encodings of one vector: no JSON that a worker makes has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Server to worker, first and once: which model to load, and where things are.

    `version` is the server's; a worker of another version (after an upgrade) refuses to start.
    `spec` is `dataclasses.asdict` of a ModelSpec, and `lock` of its LockEntry, if there is one.
    `spawned_s` is the time of the spawn on the monotonic clock, which both processes share.
    `device` is the one of `Ready.devices` to use; empty: the backend's own choice. `workers` is how
    many the model is to have, as far as is known: 1 before the first has said which devices it has.
    `threads` is how many it may compute with; 0: one on each core.
    `vectors` is the cache of vectors, if there is one: `file`, `secret` (another file) and
    `most_bytes`.
    """

    version: str
    spec: dict[str, Any]
    hub: str
    cache: str
    lock: dict[str, Any] | None
    spawned_s: float = 0.0
    device: str = ""
    workers: int = 1
    threads: int = 0
    vectors: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """What a request for vectors asks of the worker, whatever its texts and its model.

    The one home of these options: `pool.request.EmbedRequest` has them from the caller, and `Embed`
    has them for the worker.

    `truncate` False: refuse a text that is too long instead of cutting it. `encoding` is how each
    vector is sent back. `normalize` None: as the registry says. `token_ids`: each text consists of
    the ids of another tokenizer, separated by spaces. `query`: the first text of a pair with each
    of these, for a re-ranker; its vector is one number, the logit. `text_tokens`: where to cut the
    second, if the model would take more. `cache` False: compute every text for this request,
    whatever is kept and whoever else asks. `pairs`: sparse vectors are JSON as in
    text-embeddings-inference; see `sparse.encode_entries`. `dtype`: what the numbers are. `also`:
    further encodings and dtypes of each vector, which follow the first with `BETWEEN` before each.
    """

    truncate: bool = True
    encoding: Encoding = "json"
    normalize: bool | None = None
    token_ids: bool = False
    query: str | None = None
    text_tokens: int | None = None
    cache: bool = True
    pairs: bool = False
    dtype: Dtype = "float"
    also: Sequence[tuple[Encoding, Dtype]] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """These fields by name, without those that a subclass adds."""
        return {name: getattr(self, name) for name in OPTIONS}


OPTIONS = [each.name for each in fields(EmbedOptions)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(EmbedOptions):
    """Server to worker: embed these texts; answered with `Fragments`.

    `is_query`: the texts are queries, which some sparse models look up in a table. `step` is that
    of int8 and uint8. `spans`: for late chunking, where the chunks of each text begin and end, in
    code points without the prompt, with `cache` False. A text's fragment then has the vectors of
    its chunks, which are JSON, with "," between. No text is cut.
    """

    id: int
    texts: Sequence[str]
    prompt: str
    dimensions: int
    is_query: bool = False
    step: float = 0.0
    spans: list[list[Span]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """Server to worker: send the tokens of these texts, uncut; answered with `Fragments`.

    Each fragment is a JSON array of tokens; see `Tokenizer.describe`. `special` False: without the
    special tokens that the tokenizer adds.
    """

    id: int
    texts: Sequence[str]
    prompt: str
    special: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Server to worker: cut these texts into chunks; answered with `Fragments`.

    Each fragment is a JSON array of chunks; see `chunking.describe`. The other fields are those of
    `spaces.chunks.Chunking`. `prompt`: leave room for it in each chunk. `with_text`: each chunk has
    its text.
    """

    id: int
    texts: Sequence[str]
    prompt: str
    kind: ChunkKind = "text"
    language: str | None = None
    size: int | None = None
    overlap: int = 0
    with_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Server to worker: nobody is waiting for this request any longer."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Worker to server: the progress of the start; `done` of `total` bytes while downloading."""

    phase: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Worker to server: the model is loaded.

    `lock` is the new LockEntry as a dict. `fingerprints` maps each output size, as a string, to its
    fingerprint; `equivalent` are others for the same space. `phases_s` says how long each part of
    the start took, in seconds. `differences` is where the model's folder says something other than
    its entry, and what would be faster; see `registry.difference`. `devices` are those that a
    worker each could use, the one in use first; empty if there is nothing to choose. `streams` is
    how many batches it runs at once.
    """

    backend: str
    compute: str
    max_tokens: int
    fingerprints: dict[str, str]
    equivalent: list[str]
    lock: dict[str, Any]
    phases_s: dict[str, float]
    differences: list[dict[str, str]] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    streams: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """Worker to server, last: the model cannot be loaded; `code` is that of a class in `errors`."""

    code: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragments:
    """Worker to server: parts of a request's answer, one after another in the payload.

    A fragment is what one text becomes: its vector as `EmbedOptions` say, its tokens or chunks.
    `indices` are the places of these texts in the request, and `sizes` the bytes of each fragment.
    `tokens` counts what these texts fed to the model, and `truncated` are the indices of those that
    were cut. In seconds: `tokenize_s` and `queue_s` (from arrival to the first batch) of the whole
    request so far, `model_s` of the batch with these texts, `encode_s` for making the payload.
    `cached` is how many of these vectors came from the cache on disk.
    `chunk_size` is what the size of chunks came to, in tokens.
    """

    id: int
    indices: list[int]
    sizes: list[int]
    tokens: int
    truncated: list[int]
    tokenize_s: float
    queue_s: float
    model_s: float
    encode_s: float
    cached: int = 0
    chunk_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Worker to server, before the fragments of a batch: what ran, for one or several requests.

    `tokens` is without padding, `padded_tokens` with it; `budget_tokens` is the most it could have.
    """

    texts: int
    tokens: int
    padded_tokens: int
    budget_tokens: int
    model_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Worker to server: this request fails, even if part of it has been answered."""

    id: int
    code: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """Worker to server, last: the data it computed with was damaged, so its answers may be wrong.

    `what` says what was damaged and what happened to it.
    """

    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Worker to server, once: it has checked what it computes with, and found no damage."""


FromServer = Start | Embed | Tokenize | Chunk | Cancel
FromWorker = Progress | Ready | StartFailed | Batch | Fragments | Failure | Damaged | Audited
Frame = FromServer | FromWorker
FRAMES: Mapping[str, type[Any]] = {
    cls.__name__: cls for cls in (*get_args(FromServer), *get_args(FromWorker))
}


class FrameError(Exception):
    """The bytes are not a frame: the other end is broken, and the connection has to end."""


@dataclass(frozen=True, slots=True)
class Received:
    """A frame and its payload, perhaps as a view of what it came with."""

    frame: Frame
    payload: bytes | memoryview = field(default=b"", repr=False)


def encode(frame: Frame, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame; raise `FrameError` if it is larger than the limits."""
    header = orjson.dumps({"frame": type(frame).__name__, "fields": frame})
    _check_sizes(len(header), len(payload))
    return PREFIX.pack(len(header), len(payload)) + header + payload


def sizes(prefix: bytes) -> tuple[int, int]:
    """Return the sizes of header and payload; raise `FrameError` if they exceed the limits."""
    header, payload = PREFIX.unpack(prefix)
    _check_sizes(header, payload)
    return header, payload


def _check_sizes(header: int, payload: int) -> None:
    if header > MAX_HEADER_BYTES or payload > MAX_PAYLOAD_BYTES:
        raise FrameError("the frame is larger than any frame may be")


def decode(header: bytes, payload: bytes | memoryview) -> Received:
    """Return the frame with this header and payload; raise `FrameError` if it is not one."""
    try:
        data = orjson.loads(header)
        return Received(FRAMES[data["frame"]](**data["fields"]), payload)
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"not a frame: {type(error).__name__}") from None


def read(stream: BinaryIO | BufferedIOBase) -> Received | None:
    """Read one frame; None at the end of the stream, even in the middle of a frame."""
    prefix = stream.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header_bytes, payload_bytes = sizes(prefix)
    header, payload = stream.read(header_bytes), stream.read(payload_bytes)
    if len(header) < header_bytes or len(payload) < payload_bytes:
        return None
    return decode(header, payload)


class Splitter:
    """Cuts what comes from a pipe, in pieces of any size, into frames."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a frame that is not here in full
        self._held_bytes = 0
        self._needed_bytes = PREFIX.size

    def feed(self, data: bytes) -> Iterator[Received]:
        """Take what has come, and yield the frames that are complete. Raises `FrameError`."""
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._needed_bytes:
            return
        data = b"".join(self._pieces) if len(self._pieces) > 1 else data
        start = 0
        while len(data) - start >= (needed := self._next_bytes(data, start)):
            begin = start + PREFIX.size
            middle = begin + PREFIX.unpack_from(data, start)[0]
            start += needed
            yield decode(data[begin:middle], memoryview(data)[middle:start])  # it may be megabytes
        self._pieces = [data[start:]] if start < len(data) else []
        self._held_bytes, self._needed_bytes = len(data) - start, needed

    def _next_bytes(self, data: bytes, start: int) -> int:
        """Return the size of the frame that begins there; of its prefix, if that is not whole."""
        if len(data) - start < PREFIX.size:
            return PREFIX.size
        return PREFIX.size + sum(sizes(data[start : start + PREFIX.size]))
