"""An answer of the pool -> bytes of a response: stitched from fragments, never decoded."""

import struct
from typing import Literal

import orjson
from starlette.background import BackgroundTask
from starlette.responses import Response

from emberd.pool.job import Answer
from emberd.pool.memory import release_free_memory

Format = Literal["json", "raw", "npy"]
BIG_BYTES = 2**20


def chosen_format(accept: str) -> Format:
    """Return what an Accept header asks for; JSON unless it names one of the others."""
    if "application/x-npy" in accept:
        return "npy"
    return "raw" if "application/octet-stream" in accept else "json"


def embed_response(answer: Answer, form: Format) -> Response:
    """Return the native answer of `POST /embed`."""
    if form == "json":
        rest = {
            "dimensions": answer.dimensions,
            "model": answer.model,
            "fingerprint": answer.fingerprint,
            "truncated": answer.truncated,
            "usage": {"tokens": answer.tokens},
        }
        body = b'{"embeddings":[' + b",".join(answer.fragments) + b"]," + orjson.dumps(rest)[1:]
        return _with_identity(answer, body, "application/json")
    body = b"".join(answer.fragments)
    if form == "npy":
        header = npy_header(len(answer.fragments), answer.dimensions)
        return _with_identity(answer, header + body, "application/x-npy")
    response = _with_identity(answer, body, "application/octet-stream")
    response.headers["X-Emberd-Dimensions"] = str(answer.dimensions)
    response.headers["X-Emberd-Rows"] = str(len(answer.fragments))
    return response


def npy_header(rows: int, columns: int) -> bytes:
    """Return the header of a little-endian float32 array in NumPy's format 1.0.

    Source: numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The header is padded
    with spaces so that the data begins at a multiple of 64 bytes.
    """
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    prefix_bytes = 10
    padding = -(prefix_bytes + len(text) + 1) % 64
    described = text.encode() + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(described)) + described


def _with_identity(answer: Answer, body: bytes, media_type: str) -> Response:
    return Response(
        body,
        media_type=media_type,
        headers={"X-Emberd-Model": answer.model, "X-Emberd-Fingerprint": answer.fingerprint},
        background=BackgroundTask(release_free_memory) if len(body) > BIG_BYTES else None,
    )
