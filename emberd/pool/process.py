"""One worker, seen from the server: what the pool needs from it, and the process behind it."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Protocol

from emberd import __version__
from emberd.config.paths import Homes
from emberd.pool import memory
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry
from emberd.worker import wire

TERM_GRACE_S = 5.0
MOST_UNREAD_BYTES = 32 * 2**20  # of frames; what it has not read yet can still be taken back


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

    def frames(self) -> AsyncGenerator[wire.Received, None]:
        """Yield what it sends, until it dies or sends something that is not a frame."""

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


def start_frame(spec: ModelSpec, homes: Homes, entry: LockEntry | None) -> wire.Start:
    """Return what a worker that is spawned now is told; `entry` is what the lock remembers."""
    return wire.Start(
        version=__version__,
        spec=asdict(spec),
        hub=str(homes.hub),
        cache=str(homes.cache),
        lock=asdict(entry) if entry else None,
        spawned_s=time.monotonic(),
    )


class WorkerProcess:
    """A running `python -m emberd.worker`. Spawned, never forked (MLX and threads forbid a fork).

    It has a session of its own, so that Ctrl-C in a terminal reaches only the server, and it ends
    by itself when its stdin closes, which also happens when the server dies.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin and process.stdout  # both are pipes, see spawn
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def spawn(cls, start: wire.Start) -> "WorkerProcess":
        """Start a process and tell it which model to load. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # never import from the folder the server happens to run in
            "-m",
            "emberd.worker",
            str(start.spec["name"]),  # seen in the process list
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        worker = cls(process)
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

    async def frames(self) -> AsyncGenerator[wire.Received, None]:
        """Yield what it sends, until it dies or sends something that is not a frame."""
        with suppress(asyncio.IncompleteReadError, ConnectionError, wire.FrameError):
            while True:
                prefix = await self._stdout.readexactly(wire.PREFIX.size)
                header_bytes, payload_bytes = wire.sizes(prefix)
                header = await self._stdout.readexactly(header_bytes)
                yield wire.decode(header, await self._stdout.readexactly(payload_bytes))

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
