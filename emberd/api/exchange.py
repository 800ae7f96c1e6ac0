"""The one way from a request to the pool's answer, in every dialect."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request

from emberd.api.byte_budget import reservation_of
from emberd.api.hang_up import hang_up_of
from emberd.api.record import record_of
from emberd.errors import BadOptionError
from emberd.pool.job import Answer, Timing
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface
from emberd.registry.spec import ModelSpec
from emberd.worker.wire import Encoding

ANSWER_BYTES: Mapping[Encoding, int] = {"json": 12, "base64": 6, "raw": 4}  # roughly, per number
TOKEN_BYTES = 64  # roughly, per character of a text to tokenize
CHUNK_BYTES = 96  # roughly, per chunk
FEW_TOKENS = 64  # of a chunk, whose size is not known here
ENTRY_BYTES = 32  # roughly, per number of a sparse vector that is not zero,
MOST_ENTRIES = 512  # of which there are rarely more


async def embed(request: Request, pool: PoolSurface, asked: EmbedRequest) -> Answer:
    """Return the pool's answer; an expected fingerprint and `cache` may also come in headers.

    If the request or the model's name states a role, a header of the answer says which prompt the
    texts got.

    Raises:
        EmberdError: as `Pool.embed`.
        ClientDisconnect: the client hung up; its texts leave the queue.
    """
    expected = asked.fingerprint or request.headers.get("x-emberd-expect-fingerprint")
    record = record_of(request.scope)
    spec, role = pool.find(asked.model, asked.input_type, asked.kinds)
    record.model = spec.name
    if expected != asked.fingerprint:
        asked = replace(asked, fingerprint=expected)
    if "x-emberd-cache" in request.headers:
        asked = replace(asked, cache=asked.cache and _may_cache(request))
    reservation = reservation_of(request.scope)
    reservation.resize(_size_bytes(asked, spec, pool.limits.max_texts))
    answer = await hang_up_of(request.scope).ends(pool.embed(asked))
    reservation.set(sum(map(len, answer.fragments)))
    record.note(answer)
    if role:
        record.headers["X-Emberd-Prompt"] = role if spec.prompts.get(role) else "none"
    return answer


def _may_cache(request: Request) -> bool:
    """Return what the header says. Raises BadOptionError."""
    said = request.headers["x-emberd-cache"].lower()
    if said not in ("true", "false"):
        raise BadOptionError(
            "X-Emberd-Cache: it is neither `true` nor `false`.",
            hint="Send `false` to have every text computed anew, or leave the header out.",
        )
    return said == "true"


def _size_bytes(asked: EmbedRequest, spec: ModelSpec, max_texts: int) -> int:
    """Return the memory of the texts as Python strings, plus roughly that of their answer.

    Texts beyond `max_texts` are not counted: the pool refuses such a request.
    """
    texts = asked.texts[:max_texts]
    held_bytes = sum(map(sys.getsizeof, texts)) + sys.getsizeof(asked.query)
    if asked.description == "tokens":
        return held_bytes + TOKEN_BYTES * sum(map(len, texts))
    if asked.description == "chunks":
        size = asked.chunking.size or FEW_TOKENS
        said_bytes = CHUNK_BYTES * (sum(map(len, texts)) // size + len(texts))
        return held_bytes * (1 + asked.chunking.with_text) + said_bytes
    if spec.kind == "sparse":
        return held_bytes + ENTRY_BYTES * MOST_ENTRIES * len(texts)
    encodings = (asked.encoding, *(encoding for encoding, _ in asked.also))
    number_bytes = sum(map(ANSWER_BYTES.__getitem__, encodings))  # smaller dtypes take less
    vectors = sum(map(len, asked.spans)) if asked.spans else len(texts)
    return held_bytes + number_bytes * vectors * spec.dimensions


async def load(request: Request, pool: PoolSurface, name: str | None) -> Answer:
    """Return an answer without vectors, once the model is loaded.

    An expected fingerprint is not checked: there are no vectors that could be of another space.

    Raises:
        EmberdError: as `Pool.load`.
        ClientDisconnect: the client hung up; a start in progress continues while others want it.
    """
    record = record_of(request.scope)
    record.model = pool.spec(name).name
    began_s = time.monotonic()
    row = await hang_up_of(request.scope).ends(pool.load(name))
    answer = Answer(
        model=row.name,
        fragments=(),
        dimensions=row.dimensions,
        fingerprint=row.fingerprint or "",
        tokens=0,
        truncated=(),
        timing=Timing(wait_s=time.monotonic() - began_s),
    )
    record.note(answer)
    return answer
