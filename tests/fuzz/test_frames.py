"""Bytes between server and worker that are no frames: told so, or the end; never more memory."""

import io
import json

from hypothesis import strategies as st

from emberd.worker import wire
from tests.fuzz.cases import JSON, Damage, changed, damages, fuzz

WHOLE = wire.encode(
    wire.Embed(
        id=1, texts=["a", "b"], prompt="", truncate=True, dimensions=8, encoding="raw",
    ),
    b"payload",
)  # fmt: skip


def read_all(data: bytes) -> None:
    """Read frames until the end; only a FrameError may come."""
    stream = io.BytesIO(data)
    try:
        while wire.read(stream):
            pass
    except wire.FrameError:
        pass


@fuzz(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    read_all(data)


@fuzz(damages())
def test_a_damaged_frame(damage: Damage) -> None:
    read_all(damage(WHOLE) + WHOLE)


HEADER = {"frame": "Embed", "fields": {"id": 1, "texts": ["a"], "prompt": "", "truncate": True}}


@fuzz(st.binary(max_size=60) | (changed(HEADER) | JSON).map(lambda data: json.dumps(data).encode()))
def test_any_header(header: bytes) -> None:
    read_all(wire.PREFIX.pack(len(header), 0) + header)
