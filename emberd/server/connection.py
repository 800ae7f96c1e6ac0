"""One client's connection: uvicorn's, changed so that doing nothing cannot hold it open.

uvicorn waits forever for a request that does not arrive whole and for a client that does not read,
takes headers of any size, and lets asyncio accept connections until no more files can be opened.
Here requests have to arrive and answers to be read in time (`timeouts`, `reading`), everything in a
request but its body has at most `MAX_HEAD_BYTES`, and connections beyond what the limit on open
files allows (`limits`) get a 503.

uvicorn also closes a connection while its client still sends what was refused, so that the client
never sees why (see `closing`), treats a client that closed its sending side as gone (`peers`), and
writes an answer in two parts, each of which wakes the client (`one_write`).

What is overridden is private to uvicorn, so pyproject.toml caps its version, and
tests/server/test_connection.py checks that all of it is still there.
"""

import asyncio
import time
from collections import deque
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from emberd.api.hang_up import KEY, HangUp
from emberd.server.closing import Closing, Lingering
from emberd.server.one_write import OneWrite
from emberd.server.peers import SilentWatch
from emberd.server.reading import ReadingWatch
from emberd.server.timeouts import Timeouts

MAX_HEAD_BYTES = 64 * 2**10  # request line, headers, trailers, and what stands between chunks
FRAMING = 8  # bytes of it for each byte of a body: a chunk may hold one byte


class Connection(HttpToolsProtocol):
    """A connection that cannot be held open by doing nothing."""

    most = 0  # connections at a time; set by the server, once it has raised the limit
    timeouts = Timeouts()  # also set by the server
    _wire: asyncio.Transport
    _reading: ReadingWatch
    _hang_up: HangUp
    _unanswered: deque[Any]  # uvicorn's cycles: one being answered, then those sent ahead
    _more_comes = False  # of a request that has begun
    _whole_s = 0.0  # when the last byte of a request came
    _is_silent = False  # the client has stopped sending
    _timeout: asyncio.TimerHandle | None = None  # for the request that is expected
    _head_bytes = 0  # received of the current request, less what its body allows
    _in_head = True
    _upgrades = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or turn the client away."""
        super().connection_made(transport)
        self._wire = transport
        self._reading = ReadingWatch(transport, self.loop, self.timeouts.reading_s)
        self.transport = Closing(transport, self._close)  # type: ignore[assignment]
        self._hang_up = HangUp(transport.abort)
        self._unanswered = deque()
        self.app_state = {**self.app_state, KEY: self._hang_up}  # copied for each request
        if len(self.connections) > self.most:
            self._refuse(503, "too_many_connections", "Too many connections are open.")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._reading.stop()
        super().connection_lost(exc)
        for cycle in self._unanswered:  # uvicorn tells only the last one that its client is gone
            cycle.disconnected = not cycle.response_complete
        self._hang_up.happen()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on if a whole request is being answered; otherwise the client has hung up."""
        if self._is_idle or self._more_comes:
            return False
        if not self._is_silent:
            self._is_silent = True
            self.cycle.keep_alive = False
            SilentWatch(self._wire, self.loop, time.monotonic() - self._whole_s)
        return True

    def pause_writing(self) -> None:
        """Watch whether the client reads: more of its answer is buffered than it takes."""
        super().pause_writing()
        self._reading.start()

    def resume_writing(self) -> None:
        """Stop watching: the client reads again."""
        self._reading.stop()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse; start the timeout for bytes that do not even begin a request."""
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        self._parse(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "head_too_large", "The request's headers are too large.")
        elif not self._timeout and (self._more_comes or self._is_idle):
            self._wait()

    def on_message_begin(self) -> None:
        """Wait anew, for the end of the request that begins, unless it comes at once."""
        super().on_message_begin()
        self._in_head = self._more_comes = True
        self._stop_waiting()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but not a trailer (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head = False
        self._upgrades = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._upgrades:
            super().on_headers_complete()
            while self._unanswered and self._unanswered[0].response_complete:
                self._unanswered.popleft()
            self._unanswered.append(self.cycle)
            if self.scope["method"] != "HEAD":  # whose head nothing follows
                cycle: Any = self.cycle
                cycle.transport = OneWrite(self.transport, cycle)

    def on_body(self, body: bytes) -> None:
        """Take some of the body."""
        self._head_bytes -= (1 + FRAMING) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting; the rest is up to the server."""
        if self._upgrades:
            return
        self._head_bytes = 0
        self._more_comes, self._whole_s = False, time.monotonic()
        self._stop_waiting()
        if not self.pipeline:  # a large body has stopped it; how else would a hang-up be noticed?
            self.flow.resume_reading()
        super().on_message_complete()
        if not self.parser.should_keep_alive():  # also by a trailer: httptools reads no more
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Parse as uvicorn does, but answer requests to upgrade the protocol, in HTTP/1.1.

        RFC 9110, 7.8 allows that, and clients that try HTTP/2 this way (Java's) expect it.
        httptools takes the body of such a request for the other protocol.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                head = self._head_without_upgrade() if self._upgrades else b""
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
                data = head + data[upgrade.args[0] :]
                continue
            except httptools.HttpParserError:
                self.logger.warning("A client sent something that is not HTTP.")
                self._refuse(400, "malformed_http", "This is not an HTTP/1.1 request.")
            return

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: Any = self.cycle  # None at first, whatever its type says
        return cycle is None or bool(cycle.response_complete)

    def _wait(self) -> None:
        if self.transport.is_closing():
            return
        self._stop_waiting()
        self._timeout = self.loop.call_later(self.timeouts.request_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timeout:
            self._timeout.cancel()
            self._timeout = None

    def _give_up(self) -> None:
        if not self._head_bytes and self._is_idle:  # it was opened ahead, as browsers do
            self.transport.close()
            return
        what = f"No complete request came within {self.timeouts.request_s:.0f} s."
        self._refuse(408, "request_timeout", what)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Send an error in the native shape, unless an answer is under way, and hang up."""
        if self.transport.is_closing():
            return
        is_answered = self._is_idle and self._more_comes and not self._in_head
        if not is_answered and (self._is_idle or not self.cycle.response_started):
            body = orjson.dumps({"detail": detail, "code": code, "hint": None})
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\n"
                + b"content-length: %d\r\n" % len(body)
                + (b"retry-after: 1\r\n" if status == 503 else b"")
                + b"connection: close\r\n\r\n"
                + body
            )
        self._more_comes = True  # as far as anybody knows
        self.transport.close()

    def _close(self) -> None:
        """Close; if the client still sends, only after it had time to read its answer."""
        if self._more_comes and Lingering.has_room():
            Lingering(self._wire, self.loop, self.timeouts)
            self.connection_lost(None)
        else:
            self._wire.close()
