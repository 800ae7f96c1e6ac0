"""One client's connection: uvicorn's, with an end for those that never finish a request.

uvicorn waits for ever for a request that does not come or does not end, and asyncio accepts as many
connections as come, until no file can be opened any more. Here a request has to be in within
`REQUEST_S`, and connections beyond what the limit on open files allows are turned away with a 503.
"""

import asyncio
import resource
import time
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

REQUEST_S = 60.0  # from the first byte (or the connection) to the last byte of a request
BACKLOG = 512  # connections that are accepted at once, before any of them is looked at
OTHER_FILES = 128  # workers' pipes, logs, libraries


def most_connections() -> int:
    """Return how many connections the soft limit on open files leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(files - BACKLOG - OTHER_FILES, files // 4)


class Connection(HttpToolsProtocol):
    """A connection that cannot be held open by doing nothing."""

    most = 0  # set by the server, once it has raised the limit
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or turn the client away."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._answer(503, "too_many_connections", "Too many connections are open.")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and wait for the rest of what has not even begun to be a request."""
        super().data_received(data)
        if self._is_idle and not self._patience and not self.transport.is_closing():
            self._wait()

    def on_message_begin(self) -> None:
        """Wait for the end of the request that begins."""
        super().on_message_begin()
        self._wait()

    def on_message_complete(self) -> None:
        """Stop waiting: the rest is the server's business."""
        self._stop_waiting()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._answer(400, "malformed_http", msg)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: Any = self.cycle  # None at first, whatever its type says
        return cycle is None or bool(cycle.response_complete)

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(REQUEST_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._answer(408, "request_timeout", f"No whole request came within {REQUEST_S:.0f} s.")

    def _answer(self, status: int, code: str, detail: str) -> None:
        """Send an error in the native shape, unless an answer is under way, and hang up."""
        if self.transport.is_closing():
            return
        if self._is_idle or not self.cycle.response_started:
            body = orjson.dumps({"detail": detail, "code": code, "hint": None})
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\n"
                + b"content-length: %d\r\n" % len(body)
                + (b"retry-after: 1\r\n" if status == 503 else b"")
                + b"connection: close\r\n\r\n"
                + body
            )
        self.transport.close()


class AcceptTrouble:
    """The loop's handler of exceptions nobody caught: one line, and not 1,000 a second.

    Out of file descriptors, asyncio reports every connection that it could not accept, for as many
    as the backlog has, once a second.
    """

    EVERY_S = 10.0

    def __init__(self, log: Any) -> None:  # noqa: ANN401 - any logger
        self._log = log
        self._next_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note what happened."""
        del loop
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + self.EVERY_S
            cause = context.get("exception")
            self._log.error("%s (%s)", context["message"], type(cause).__name__)
