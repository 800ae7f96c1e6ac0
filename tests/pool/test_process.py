"""What a worker sends reaches who listens: whole, in order, and with one end."""

import asyncio

import psutil
import pytest

from emberd.pool.process import Frames, WorkerProcess
from emberd.worker import wire
from tests.event_loop import in_event_loop

ONE, TWO = wire.Received(wire.Cancel(id=1)), wire.Received(wire.Cancel(id=2), b"payload")
NOT_A_FRAME = wire.PREFIX.pack(2**32 - 1, 0)


def packed(received: wire.Received) -> bytes:
    return wire.encode(received.frame, bytes(received.payload))


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


@in_event_loop
async def test_a_start_that_is_called_off_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = asyncio.Event()

    async def for_ever(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "connect_read_pipe", for_ever)
    start = wire.Start(version="", spec={"name": "m"}, hub="", cache="", lock=None, spawned_s=0.0)
    before = set(psutil.Process().children())
    spawning = asyncio.create_task(WorkerProcess.spawn(start))
    await reached.wait()
    [process] = set(psutil.Process().children()) - before

    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning

    assert not process.is_running()
