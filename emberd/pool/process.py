"""One worker, seen from the server: what the pool needs from it, and the process behind it."""

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from emberd import __version__
from emberd.config.paths import Homes
from emberd.pool import memory
from emberd.registry.spec import ModelSpec
from emberd.worker import wire

TERM_GRACE_S = 5.0
PIPE_BYTES = 2**20  # the vectors of a large batch in one write; Linux's 64 KiB would hold it up
MOST_UNREAD_BYTES = 32 * 2**20  # of frames; what it has not read yet can still be taken back


OnFrame = Callable[[wire.Received], None]
OnEnd = Callable[[], None]


class Worker(Protocol):
    """What the pool needs from a worker. It is given its model when it is spawned."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def takes_more(self) -> bool:
        """Whether it has read most of what it has been sent."""

    def send(self, frame: wire.Frame) -> None:
        """Queue a frame; does nothing once the worker has died. Raises `FrameError`."""

    def listen(self, received: OnFrame, over: OnEnd) -> None:
        """Call `received` with each frame that it sends, from the first one on; at the end `over`.

        That is when it dies or has sent something that is not a frame.
        """

    def kill(self) -> None:
        """End it at once, even when it is stopped or hangs."""

    async def death(self, within_s: float) -> str:
        """Return the cause of death, a signal or an exit code, once its pipe has closed."""

    async def end(self, drain_s: float) -> int:
        """Ask it to end, then force it. Return its exit code once its memory is back."""

    def memory_bytes(self) -> int:
        """Return its resident memory, 0 when it is gone."""

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used, 0 when it is gone."""


Spawn = Callable[[wire.Start], Awaitable[Worker]]  # raises OSError


def start_frame(
    spec: ModelSpec,
    homes: Homes,
    lock: dict[str, Any] | None,
    *,
    device: str = "",
    workers: int = 1,
    threads: int = 0,
    vectors_bytes: int = 0,
) -> wire.Start:
    """Return what a worker that is spawned now is told; `lock` is the model's entry there."""
    file, secret = str(homes.vectors), str(homes.vectors_secret)
    vectors = {"file": file, "secret": secret, "most_bytes": vectors_bytes}
    return wire.Start(
        version=__version__,
        spec=asdict(spec),
        hub=str(homes.hub),
        cache=str(homes.cache),
        lock=lock,
        spawned_s=time.monotonic(),
        device=device,
        workers=workers,
        threads=threads,
        vectors=vectors if vectors_bytes else None,
    )


class Frames(asyncio.Protocol):
    """What a worker sends, cut into frames as it comes."""

    def __init__(self) -> None:
        self._splitter = wire.Splitter()
        self._early: list[wire.Received] = []  # before anybody listens
        self._received: OnFrame = self._early.append
        self._over: OnEnd | None = None
        self._is_over = False

    def listen(self, received: OnFrame, over: OnEnd) -> None:
        """See `Worker`."""
        self._received, self._over = received, over
        for early in self._early:
            received(early)
        if self._is_over:
            over()

    def data_received(self, data: bytes) -> None:
        """Take some bytes; after something that is not a frame, no more."""
        if self._is_over:
            return
        try:
            for received in self._splitter.feed(data):
                self._received(received)
        except wire.FrameError:
            self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say, once, that nothing more will come."""
        del exc
        if not self._is_over and self._over:
            self._over()
        self._is_over = True


class WorkerProcess:
    """A running `python -m emberd.worker`. Spawned, never forked (MLX and threads forbid a fork).

    It has a session of its own, so that Ctrl-C in a terminal reaches only the server, and it ends
    by itself when its stdin closes, which also happens when the server dies.
    """

    def __init__(self, process: asyncio.subprocess.Process, frames: Frames) -> None:
        self._process = process
        self._frames = frames
        assert process.stdin  # see spawn
        self._stdin = process.stdin

    @classmethod
    async def spawn(cls, start: wire.Start) -> "WorkerProcess":
        """Start a process and tell it which model to load. Raises OSError."""
        # A pipe of our own: asyncio passes on what comes from one of its own a turn later.
        read_end, write_end = os.pipe()
        if sys.platform == "linux":
            with suppress(OSError):  # this user's pipes have too much already
                fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # never import from the folder the server happens to run in
                "-m",
                "emberd.worker",
                str(start.spec["name"]),  # seen in the process list
                stdin=asyncio.subprocess.PIPE,
                stdout=write_end,
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        loop, replies = asyncio.get_running_loop(), os.fdopen(read_end, "rb", 0)
        try:
            _, frames = await loop.connect_read_pipe(Frames, replies)
        except BaseException:  # above all a cancellation: nobody else knows of the process
            process.kill()
            replies.close()
            await process.wait()
            raise
        worker = cls(process, frames)
        worker.send(start)
        return worker

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def takes_more(self) -> bool:
        """Whether it has read most of what it has been sent."""
        return self._stdin.transport.get_write_buffer_size() < MOST_UNREAD_BYTES

    def send(self, frame: wire.Frame) -> None:
        """Queue a frame; does nothing once the process has died. Raises `FrameError`."""
        if not self._stdin.is_closing():
            self._stdin.write(wire.encode(frame))

    def listen(self, received: OnFrame, over: OnEnd) -> None:
        """See `Worker`."""
        self._frames.listen(received, over)

    def close_stdin(self) -> None:
        """Ask it to finish its work and end."""
        with suppress(OSError):
            self._stdin.close()

    def memory_bytes(self) -> int:
        """Return its resident memory, 0 when it is gone."""
        return memory.memory_bytes(self.pid)

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used, 0 when it is gone."""
        return memory.cpu_seconds(self.pid)

    def kill(self) -> None:
        """End it at once, even when it is stopped or hangs."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def death(self, within_s: float) -> str:
        """Return the cause of death, a signal or an exit code, once its pipe has closed."""
        try:
            code = await asyncio.wait_for(self._process.wait(), within_s)
        except TimeoutError:
            return "a closed pipe"
        if code >= 0:
            return f"exit code {code}"
        known = {number.value: number.name for number in signal.Signals}
        return known.get(-code, f"signal {-code}")

    async def end(self, drain_s: float) -> int:
        """End it: close stdin, wait `drain_s`, TERM, wait, KILL. Return its exit code.

        Waiting before KILL matters: killing a process that wires much memory leaked it on macOS.
        """
        self.close_stdin()
        for wait_s, next_signal in ((drain_s, signal.SIGTERM), (TERM_GRACE_S, signal.SIGKILL)):
            try:
                return await asyncio.wait_for(self._process.wait(), wait_s)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.send_signal(next_signal)
        return await self._process.wait()
