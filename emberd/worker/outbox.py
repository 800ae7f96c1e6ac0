"""What leaves the worker: whole frames to the server, and lines to its log.

Nothing logged here ever contains a text, a token or a vector.
"""

import os
import sys
from threading import Lock
from typing import BinaryIO

from emberd.errors import EmberdError
from emberd.worker import wire


class Sender:
    """Writes whole frames, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def __call__(self, frame: wire.Frame, payload: bytes = b"", *, more: bool = False) -> None:
        """Write a frame, and flush unless `more` follow at once."""
        encoded = wire.encode(frame, payload)
        with self._lock:
            self._stream.write(encoded)
            if not more:
                self._stream.flush()


def failure(request_id: int, error: EmberdError) -> wire.Failure:
    """Return the frame that fails a request with this error."""
    return wire.Failure(id=request_id, code=error.code, message=error.message, hint=error.hint)


def log(message: str) -> None:
    """Write one line to the server's log (a worker's stderr goes there)."""
    sys.stderr.write(f"emberd worker {os.getpid()}: {message}\n")
