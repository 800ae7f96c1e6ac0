"""Frames between server and worker: sizes, a JSON header, then bytes only the two ends know.

No pickle and no numpy: the server passes encoded vectors on without looking inside. A frame is
two big-endian uint32 (bytes of header, bytes of payload), the header `{"frame": name, ...fields}`
and the payload.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, get_args

import orjson

PREFIX = struct.Struct(">II")
MAX_HEADER_BYTES = 257 * 2**20  # the texts of the largest body, prompt and all; no JSON gets longer
MAX_PAYLOAD_BYTES = 2**31

Encoding = Literal["json", "base64", "raw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Server to worker, first and once: which model, and where things are.

    `version` is the server's: a worker of another one (an upgrade under a running server) refuses.
    `spec` is `dataclasses.asdict` of a ModelSpec; `lock` of its LockEntry, if there is one.
    `spawned_s` is the server's monotonic clock, which both processes share, before the spawn.
    """

    version: str
    spec: dict[str, Any]
    hub: str
    cache: str
    lock: dict[str, Any] | None
    spawned_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Server to worker: embed these texts and send each back as `encoding`.

    `truncate` False: refuse a text that is too long instead of cutting it. `normalize` None: as the
    registry says. `token_ids`: each text is written as the ids of another tokenizer, with spaces
    between them.
    """

    id: int
    texts: Sequence[str]
    prompt: str
    truncate: bool
    dimensions: int
    encoding: Encoding
    normalize: bool | None = None
    token_ids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """Server to worker: say which tokens these texts have, uncut; answered by `Fragments`.

    Their payload holds a JSON array of tokens for each text; see `Tokenizer.describe`. `special`
    False: without those that the tokenizer adds.
    """

    id: int
    texts: Sequence[str]
    prompt: str
    special: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Server to worker: nobody waits for this request any more."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Worker to server: how far the start is; `done` of `total` bytes while downloading."""

    phase: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Worker to server: the model is loaded.

    `lock` is the new LockEntry as a dict; `fingerprints` has one for each output size, with the
    size as a string; `equivalent` are further ones that mean the same space; `phases_s` says how
    long each part of the start took, in seconds. `differences` are those of `registry.folder`, what
    the model's folder says and its entry does not.
    """

    backend: str
    compute: str
    max_tokens: int
    fingerprints: dict[str, str]
    equivalent: list[str]
    lock: dict[str, Any]
    phases_s: dict[str, float]
    differences: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """Worker to server, last: the model cannot be loaded; `code` picks the class in `errors`."""

    code: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragments:
    """Worker to server: some of a request's vectors; the payload holds them one after another.

    `indices` are the places of their texts in the request, `sizes` the bytes of each; `tokens` is
    what these texts fed to the model, `truncated` which of the indices were cut. In seconds:
    `tokenize_s` and `queue_s` (from arrival to the first batch) of the whole request so far,
    `model_s` of the batch that these texts were part of, `encode_s` for making the payload.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Worker to server, before the answers of a batch: what ran, of one or several requests.

    `tokens` without padding, `padded_tokens` with it; `budget_tokens` is how many it might have.
    """

    texts: int
    tokens: int
    padded_tokens: int
    budget_tokens: int
    model_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Worker to server: this request fails, whatever of it has been answered."""

    id: int
    code: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """Worker to server, last: what it computed with was damaged, and so may be what it answered.

    `what` says what that was, and what became of it.
    """

    what: str


FromServer = Start | Embed | Tokenize | Cancel
FromWorker = Progress | Ready | StartFailed | Batch | Fragments | Failure | Damaged
Frame = FromServer | FromWorker
FRAMES: Mapping[str, type[Any]] = {
    cls.__name__: cls for cls in (*get_args(FromServer), *get_args(FromWorker))
}


class FrameError(Exception):
    """The bytes are not a frame: the other end is broken and has to be given up."""


@dataclass(frozen=True, slots=True)
class Received:
    """A frame and the bytes that came with it."""

    frame: Frame
    payload: bytes = field(default=b"", repr=False)


def encode(frame: Frame, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame; raise `FrameError` when the other end would not take them."""
    header = orjson.dumps({"frame": type(frame).__name__, "fields": frame})
    _check_sizes(len(header), len(payload))
    return PREFIX.pack(len(header), len(payload)) + header + payload


def sizes(prefix: bytes) -> tuple[int, int]:
    """Return the bytes of header and payload that follow; raise `FrameError` on absurd ones."""
    header, payload = PREFIX.unpack(prefix)
    _check_sizes(header, payload)
    return header, payload


def _check_sizes(header: int, payload: int) -> None:
    if header > MAX_HEADER_BYTES or payload > MAX_PAYLOAD_BYTES:
        raise FrameError("a frame announces more bytes than any frame has")


def decode(header: bytes, payload: bytes) -> Received:
    """Make a frame again from its two parts; raise `FrameError` when they are none."""
    try:
        data = orjson.loads(header)
        return Received(FRAMES[data["frame"]](**data["fields"]), payload)
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"not a frame: {type(error).__name__}") from None


def read(stream: BinaryIO) -> Received | None:
    """Read one frame; None at the end of the stream, also in the middle of a frame."""
    prefix = stream.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header_bytes, payload_bytes = sizes(prefix)
    header, payload = stream.read(header_bytes), stream.read(payload_bytes)
    if len(header) < header_bytes or len(payload) < payload_bytes:
        return None
    return decode(header, payload)
