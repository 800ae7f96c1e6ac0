"""What leaves the worker: whole frames to the server, and lines to its log.

Nothing logged here ever contains a text, a token or a vector.
"""

import os
import sys
from collections.abc import Iterable
from threading import Lock
from typing import BinaryIO

from emberd.errors import EmberdError
from emberd.worker import wire

Reply = tuple[wire.Frame, bytes]  # a frame and its payload


class Sender:
    """Writes whole frames, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def __call__(self, frame: wire.Frame, payload: bytes = b"") -> None:
        """Write a frame."""
        self.together([(frame, payload)])

    def together(self, frames: Iterable[Reply]) -> None:
        """Write frames, each with its payload, at once: each write wakes the server."""
        encoded = b"".join([wire.encode(*frame) for frame in frames])
        with self._lock:
            self._stream.write(encoded)
            self._stream.flush()


def failure(request_id: int, error: EmberdError) -> wire.Failure:
    """Return the frame that fails a request with this error."""
    return wire.Failure(id=request_id, code=error.code, message=error.message, hint=error.hint)


def log(message: str) -> None:
    """Write one line to the server's log (a worker's stderr goes there)."""
    sys.stderr.write(f"emberd worker {os.getpid()}: {message}\n")
