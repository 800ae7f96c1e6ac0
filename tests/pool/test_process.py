"""What a worker sends reaches who listens: whole, in order, and with one end."""

from emberd.pool.process import Frames
from emberd.worker import wire

ONE, TWO = wire.Received(wire.Cancel(id=1)), wire.Received(wire.Cancel(id=2), b"payload")
NOT_A_FRAME = wire.PREFIX.pack(2**32 - 1, 0)


def packed(received: wire.Received) -> bytes:
    return wire.encode(received.frame, received.payload)


class Listener:
    """Notes what it is told."""

    def __init__(self, frames: Frames) -> None:
        self.heard: list[wire.Received | str] = []
        frames.listen(self.heard.append, lambda: self.heard.append("over"))


def test_frames_that_came_before_anybody_listened_are_not_lost() -> None:
    frames = Frames()
    frames.data_received(packed(ONE) + packed(TWO)[:9])

    listener = Listener(frames)
    assert listener.heard == [ONE]
    frames.data_received(packed(TWO)[9:])
    frames.connection_lost(None)

    assert listener.heard == [ONE, TWO, "over"]


def test_an_end_before_anybody_listened_is_told() -> None:
    frames = Frames()
    frames.data_received(packed(ONE))
    frames.connection_lost(None)

    assert Listener(frames).heard == [ONE, "over"]


def test_nothing_counts_after_what_is_not_a_frame() -> None:
    frames = Frames()
    listener = Listener(frames)

    frames.data_received(packed(ONE) + NOT_A_FRAME)
    frames.data_received(packed(TWO))
    frames.connection_lost(None)

    assert listener.heard == [ONE, "over"]
