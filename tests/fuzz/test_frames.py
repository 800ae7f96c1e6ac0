"""Bytes between server and worker that are no frames: told so, or the end; never more memory."""

import io
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from emberd.worker import wire

CASES = int(os.environ.get("EMBERD_FUZZ_CASES", "300"))
MANY = settings(max_examples=CASES, deadline=None)
WHOLE = wire.pack(
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


@MANY
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    read_all(data)


@MANY
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_frame(place: int, junk: bytes) -> None:
    read_all(WHOLE[:place] + junk + WHOLE[place + len(junk) :] + WHOLE)


@MANY
@given(st.binary(max_size=60))
def test_a_header_of_any_bytes(header: bytes) -> None:
    read_all(wire.PREFIX.pack(len(header), 0) + header)
