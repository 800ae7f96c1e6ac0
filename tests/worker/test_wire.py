"""Frames survive the trip byte for byte; anything else is refused, or is the end."""

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.worker import wire

IDS = st.integers(0, 2**53)
COUNTS = st.lists(st.integers(0, 2**40), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | IDS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SECONDS = st.floats(0, 1e6)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
FRAMES: dict[type[Any], st.SearchStrategy[wire.Frame]] = {
    wire.Start: st.builds(
        wire.Start,
        spec=OBJECTS,
        hub=st.text(),
        cache=st.text(),
        lock=st.none() | OBJECTS,
    ),
    wire.Embed: st.builds(
        wire.Embed,
        id=IDS,
        texts=st.lists(st.text(), max_size=5),
        prompt=st.text(),
        truncate=st.booleans(),
        dimensions=IDS,
        encoding=st.sampled_from(["json", "base64", "raw"]),
        normalize=st.none() | st.booleans(),
        spans=st.lists(st.lists(st.lists(IDS, min_size=2, max_size=2), max_size=3), max_size=3),
    ),
    wire.Chunk: st.builds(
        wire.Chunk,
        id=IDS,
        texts=st.lists(st.text()),
        prompt=st.text(),
        kind=st.sampled_from(["text", "markdown", "code"]),
        language=st.none() | st.text(),
        size=st.none() | IDS,
        overlap=IDS,
    ),
    wire.Cancel: st.builds(wire.Cancel, id=IDS),
    wire.Progress: st.builds(wire.Progress, phase=st.text(), done=IDS, total=IDS),
    wire.Ready: st.builds(
        wire.Ready,
        backend=st.text(),
        compute=st.text(),
        max_tokens=IDS,
        fingerprints=st.dictionaries(st.text(), st.text(), max_size=3),
        equivalent=st.lists(st.text(), max_size=3),
        lock=OBJECTS,
        phases_s=st.dictionaries(st.text(), SECONDS, max_size=3),
    ),
    wire.StartFailed: st.builds(
        wire.StartFailed, code=st.text(), message=st.text(), hint=st.none() | st.text()
    ),
    wire.Fragments: st.builds(
        wire.Fragments,
        id=IDS,
        indices=COUNTS,
        sizes=COUNTS,
        tokens=IDS,
        truncated=COUNTS,
        tokenize_s=SECONDS,
        queue_s=SECONDS,
        model_s=SECONDS,
        encode_s=SECONDS,
    ),
    wire.Tokenize: st.builds(wire.Tokenize, id=IDS, texts=st.lists(st.text()), prompt=st.text()),
    wire.Batch: st.builds(
        wire.Batch, texts=IDS, tokens=IDS, padded_tokens=IDS, budget_tokens=IDS, model_s=SECONDS
    ),
    wire.Failure: st.builds(
        wire.Failure, id=IDS, code=st.text(), message=st.text(), hint=st.none() | st.text()
    ),
    wire.Damaged: st.builds(wire.Damaged, what=st.text()),
    wire.Audited: st.builds(wire.Audited),
}
ANY_FRAME = st.one_of(list(FRAMES.values()))


class Stream(io.BytesIO):
    """Remembers the largest read."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read."""
        self.most = max(self.most, size or 0)
        return super().read(size)


def test_every_frame_is_tried_here() -> None:
    assert {frame.__name__ for frame in FRAMES} == wire.FRAMES.keys()


@given(ANY_FRAME, st.binary(max_size=100))
def test_a_frame_reads_back_equal(frame: wire.Frame, payload: bytes) -> None:
    stream = io.BytesIO(wire.encode(frame, payload))

    assert wire.read(stream) == wire.Received(frame, payload)
    assert wire.read(stream) is None


@given(st.lists(st.tuples(ANY_FRAME, st.binary(max_size=20)), min_size=2, max_size=5))
def test_frames_follow_each_other_without_a_gap(frames: list[tuple[wire.Frame, bytes]]) -> None:
    stream = io.BytesIO(b"".join(wire.encode(*frame) for frame in frames))

    assert [wire.read(stream) for _ in frames] == [wire.Received(*frame) for frame in frames]


@given(
    st.lists(st.tuples(ANY_FRAME, st.binary(max_size=20)), max_size=4), st.lists(st.integers(0, 99))
)
def test_frames_come_whole_however_the_pipe_cuts_them(
    frames: list[tuple[wire.Frame, bytes]], cuts: list[int]
) -> None:
    packed = b"".join(wire.encode(*frame) for frame in frames)
    ends = [*sorted(cut * len(packed) // 99 for cut in cuts), len(packed)]
    splitter = wire.Splitter()

    found = [
        received
        for start, end in zip([0, *ends], ends, strict=False)
        for received in splitter.feed(packed[start:end])
    ]

    assert found == [wire.Received(*frame) for frame in frames]


def test_frames_before_something_that_is_none_are_not_lost() -> None:
    frames = wire.Splitter().feed(wire.encode(wire.Cancel(id=1)) + wire.PREFIX.pack(2**32 - 1, 0))

    assert next(frames) == wire.Received(wire.Cancel(id=1))
    with pytest.raises(wire.FrameError, match="larger"):
        next(frames)


def test_a_payload_may_hold_any_bytes_and_a_text_any_character() -> None:
    frame = wire.Embed(
        id=1, texts=["\x00", "🔥", "\n{}", "naß"], prompt="", truncate=True, dimensions=1,
        encoding="raw",
    )  # fmt: skip

    received = wire.read(io.BytesIO(wire.encode(frame, b"\x00\n\xff")))

    assert received == wire.Received(frame, b"\x00\n\xff")


@given(ANY_FRAME, st.binary(max_size=20), st.data())
def test_a_stream_that_ends_within_a_frame_is_at_its_end(
    frame: wire.Frame, payload: bytes, data: st.DataObject
) -> None:
    packed = wire.encode(frame, payload)
    length = data.draw(st.integers(0, len(packed) - 1))

    assert wire.read(io.BytesIO(packed[:length])) is None


@given(st.binary(max_size=50) | JSON.map(lambda data: json.dumps(data).encode()))
def test_a_header_that_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(wire.FrameError):
        wire.decode(header, b"")


@pytest.mark.parametrize(
    "header",
    [
        {"frame": "Later", "fields": {}},
        {"frame": "Cancel"},
        {"frame": "Cancel", "fields": None},
        {"frame": "Cancel", "fields": []},
        {"frame": "Cancel", "fields": {}},
        {"frame": "Cancel", "fields": {"id": 1, "later": 2}},
        {"frame": ["Cancel"], "fields": {"id": 1}},
        {"frame": {}, "fields": {"id": 1}},
        {"fields": {"id": 1}},
    ],
)
def test_a_header_that_is_almost_a_frame_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(wire.FrameError):
        wire.decode(json.dumps(header).encode(), b"")


def test_a_header_nested_without_end_is_refused() -> None:
    with pytest.raises(wire.FrameError):
        wire.decode(b"[" * 100_000, b"")


@given(st.binary(max_size=100))
def test_noise_on_the_pipe_is_refused_or_the_end(noise: bytes) -> None:
    with suppress(wire.FrameError):  # either will do: the other end is given up
        assert wire.read(io.BytesIO(noise)) is None


@pytest.mark.parametrize(
    ("header_bytes", "payload_bytes"),
    [(2**32 - 1, 0), (0, 2**32 - 1), (wire.MAX_HEADER_BYTES + 1, 0)],
)
def test_absurd_sizes_are_refused_before_anything_is_read(
    header_bytes: int, payload_bytes: int
) -> None:
    stream = Stream(wire.PREFIX.pack(header_bytes, payload_bytes))

    with pytest.raises(wire.FrameError, match="larger"):
        wire.read(stream)

    assert stream.most == wire.PREFIX.size


def test_what_the_other_end_would_not_take_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_HEADER_BYTES", 1000)

    with pytest.raises(wire.FrameError, match="larger"):
        wire.encode(wire.Tokenize(id=1, texts=["a" * 1000], prompt=""))


def test_the_largest_sizes_are_allowed() -> None:
    largest = (wire.MAX_HEADER_BYTES, wire.MAX_PAYLOAD_BYTES)

    assert wire.sizes(wire.PREFIX.pack(*largest)) == largest
