"""The answer of `POST /embed`, its fields and headers: fragments are joined, never decoded."""

import asyncio
import struct
from collections.abc import Iterable
from typing import Literal

import orjson
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emberd.dtypes import NUMPY, Dtype, columns
from emberd.pool.job import Answer
from emberd.pool.memory import release_free_memory
from emberd.units import format_places

Format = Literal["json", "raw", "npy"]
BIG_BYTES = 2**20
PIECE_BYTES = 2**18
RELEASE_AFTER_S = 0.5
OPENING = b'{"embeddings":['


def as_json(shown: object) -> Response:
    """Return an answer without vectors."""
    return Response(orjson.dumps(shown), media_type="application/json")


def chosen_format(accept: str) -> Format:
    """Return the format that an Accept header asks for; JSON by default."""
    if "application/x-npy" in accept:
        return "npy"
    return "raw" if "application/octet-stream" in accept else "json"


def embed_response(
    answer: Answer, form: Format, dtype: Dtype | None = None, **more: bytes
) -> Response:
    """Return the native answer of `POST /embed`.

    `dtype` is the one that the request names; `more` are fields of JSON, encoded already.
    """
    if form == "json":
        rest = {
            "dimensions": answer.dimensions,
            "model": answer.model,
            "fingerprint": answer.fingerprint,
            "truncated": answer.truncated,
            "usage": {"tokens": answer.tokens},
            "cached": answer.cached,
        } | ({"output_dtype": dtype} if dtype else {})
        further = b"".join(b'"%b":%b,' % (name.encode(), value) for name, value in more.items())
        opening = b'{"sparse":[' if answer.is_sparse else OPENING
        closing = b"]," + further + orjson.dumps(rest)[1:]
        return respond(answer, enclosed(opening, answer.fragments, closing))
    body = b"".join(answer.fragments)
    if form == "npy":
        header = npy_header(len(answer.fragments), answer.dimensions, dtype or "float")
        response = respond(answer, header + body, "application/x-npy")
    else:
        response = respond(answer, body, "application/octet-stream")
    response.headers["X-Emberd-Dimensions"] = str(answer.dimensions)
    response.headers["X-Emberd-Dtype"] = dtype or "float"
    response.headers["X-Emberd-Rows"] = str(len(answer.fragments))
    response.headers["X-Emberd-Tokens"] = str(answer.tokens)
    response.headers["X-Emberd-Truncated"] = format_places(sorted(answer.truncated))
    response.headers["X-Emberd-Cached"] = str(answer.cached)
    return response


def npy_header(rows: int, dimensions: int, dtype: Dtype = "float") -> bytes:
    """Return the header of a little-endian array of vectors in NumPy's format 1.0.

    Source: numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The header is padded
    with spaces so that the data begins at a multiple of 64 bytes.
    """
    shape = f"({rows}, {columns(dimensions, dtype)})"
    text = f"{{'descr': '{NUMPY[dtype]}', 'fortran_order': False, 'shape': {shape}, }}"
    prefix_bytes = 10
    padding = -(prefix_bytes + len(text) + 1) % 64
    described = text.encode() + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(described)) + described


def as_array(answer: Answer) -> bytes:
    """Return a JSON array of the answer's fragments, which are JSON themselves."""
    return enclosed(b"[", answer.fragments, b"]")


def enclosed(opening: bytes, fragments: Iterable[bytes], closing: bytes) -> bytes:
    """Return the fragments with commas between, and these bytes around, which are mostly short.

    They are joined once: they may be megabytes, and each copy takes the event loop's time.
    """
    pieces = [*fragments] or [b""]
    pieces[0] = opening + pieces[0]
    pieces[-1] += closing
    return b",".join(pieces)


class PacedResponse(Response):
    """A response whose request lasts until the client has read nearly all of it.

    Written all at once, it would sit in the connection's buffer, where nothing counts it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it in pieces; each waits until the connection has room for it."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        body = memoryview(self.body)
        for at in range(0, max(1, len(body)), PIECE_BYTES):
            piece = body[at : at + PIECE_BYTES]
            more = at + PIECE_BYTES < len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        if self.background:
            await self.background()


def respond(answer: Answer, body: bytes, media_type: str = "application/json") -> Response:
    """Return a response whose headers name the model, the space, and what computed it."""
    headers = {"X-Emberd-Model": answer.model, "X-Emberd-Fingerprint": answer.fingerprint}
    if answer.compute:
        headers["X-Emberd-Compute"] = answer.compute
    return PacedResponse(
        body,
        media_type=media_type,
        headers=headers,
        background=BackgroundTask(_release_soon) if len(body) > BIG_BYTES else None,
    )


async def _release_soon() -> None:
    """Release memory once the answer, which is still referenced here, is gone."""
    asyncio.get_running_loop().call_later(RELEASE_AFTER_S, release_free_memory)
