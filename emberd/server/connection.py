"""One client's connection: uvicorn's, with an end for those that never finish a request.

uvicorn waits for ever for a request that does not come or does not end, and for a client that does
not read its answer, reads headers of any size, and asyncio accepts as many connections as come,
until no file can be opened any more. Here a request has to be in within `REQUEST_S`, some of an
answer to be read every `READING_S`, what of a request is no body has at most `MAX_HEAD_BYTES`,
and connections beyond what the limit on open files allows are turned away with a 503.

uvicorn also closes a connection while its client still sends what was refused, and the client never
sees why; and it takes a client that has sent all it has to say for one that has hung up. Here the
first is read out (`Lingering`), and the second is answered.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from emberd.server import peers

REQUEST_S = 60.0  # from the first byte (or the connection) to the last byte of a request
READING_S = 60.0  # an answer that nobody reads keeps its memory
MAX_HEAD_BYTES = 64 * 2**10  # request line, headers, trailers, and what stands between chunks
FRAMING = 8  # bytes of it for each byte of a body: chunks may be of one byte
LINGER_S = 30.0  # for what a client still sends that was answered before the end of its request,
SILENCE_S = 5.0  # unless nothing comes for so long
MOST_LINGERING = 64  # connections at a time; further ones are closed at once
FIRST_LOOK_S, MOST_LOOK_S = 0.05, 1.0  # between looks at whether a silent client is still there
BACKLOG = 512  # connections that are accepted at once, before any of them is looked at
OTHER_FILES = 128  # workers' pipes, logs, libraries, connections that linger


def most_connections() -> int:
    """Return how many connections the soft limit on open files leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(files - BACKLOG - OTHER_FILES, files // 4)


class Lingering(asyncio.Protocol):
    """What is left of a connection that was answered while its client still sends.

    The answer and an end are sent, then what comes is thrown away until the client closes: closed
    with something unread, a connection is reset, and the answer lost before the client reads it.
    Source: RFC 9112, section 9.6.
    """

    every: ClassVar[set["Lingering"]] = set()

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._until_s = loop.time() + LINGER_S
        self._patience = loop.call_later(SILENCE_S, transport.abort)
        self.every.add(self)
        transport.set_protocol(self)
        transport.write_eof()
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Throw it away."""
        del data
        self._patience.cancel()
        until_s = min(self._until_s, self._loop.time() + SILENCE_S)
        self._patience = self._loop.call_at(until_s, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        self._patience.cancel()
        self.every.discard(self)


class Closing:
    """A connection's transport, but for how it is closed."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close it, once."""
        if not self.is_closing():
            self._is_closed = True
            self._close()

    def is_closing(self) -> bool:
        """Whether that was asked for."""
        return self._is_closed or self._transport.is_closing()


class Connection(HttpToolsProtocol):
    """A connection that cannot be held open by doing nothing."""

    most = 0  # set by the server, once it has raised the limit
    _wire: asyncio.Transport
    _more_comes = False  # of a request that has begun
    _whole_s = 0.0  # when the last of a request came
    _is_silent = False  # the client sends no more
    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _head_bytes = 0  # received of the request under way, less what its body allows
    _in_head = True
    _upgrades = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or turn the client away."""
        super().connection_made(transport)
        self._wire = transport
        self.transport = Closing(transport, self._close)  # type: ignore[assignment]
        if len(self.connections) > self.most:
            self._answer(503, "too_many_connections", "Too many connections are open.")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on for who has sent a whole request and sends no more; anybody else has hung up."""
        if self._is_idle or self._more_comes:
            return False
        if not self._is_silent:
            self._is_silent = True
            self.cycle.keep_alive = False
            self._look_again(time.monotonic() - self._whole_s, FIRST_LOOK_S)
        return True

    def pause_writing(self) -> None:
        """Watch whether the client reads what it has asked for: more is waiting than it takes."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It does."""
        self._stop_watching()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse, and wait for the rest of what has not even begun to be a request."""
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        self._parse(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._answer(431, "head_too_large", "The request's headers are too large.")
        elif self._is_idle and not self._patience and not self.transport.is_closing():
            self._wait()

    def on_message_begin(self) -> None:
        """Wait for the end of the request that begins."""
        super().on_message_begin()
        self._in_head = self._more_comes = True
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes after the body is none (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head = False
        self._upgrades = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._upgrades:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take some of the body."""
        self._head_bytes -= (1 + FRAMING) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting: the rest is the server's business."""
        if self._upgrades:
            return
        self._head_bytes = 0
        self._more_comes, self._whole_s = False, time.monotonic()
        self._stop_waiting()
        super().on_message_complete()
        if not self.parser.should_keep_alive():  # also by a trailer: httptools reads no more
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._answer(400, "malformed_http", msg)

    def _parse(self, data: bytes) -> None:
        """Parse as uvicorn does, but answer in HTTP/1.1 who asks for another protocol, too.

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
                self.logger.warning("What came is no HTTP.")
                self.send_400_response("What came is no HTTP/1.1 request.")
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
        self._stop_waiting()
        self._patience = self.loop.call_later(REQUEST_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None

    def _watch(self) -> None:
        self._stop_watching()
        unread_bytes = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(READING_S, self._look, unread_bytes)

    def _stop_watching(self) -> None:
        if self._unread:
            self._unread.cancel()
            self._unread = None

    def _look(self, before_bytes: int) -> None:
        """Hang up when nothing was read since."""
        if self.transport.get_write_buffer_size() < before_bytes:
            self._watch()
        else:
            self.logger.warning("A client does not read its answer; it is hung up on.")
            self.transport.abort()

    def _look_again(self, waited_s: float, after_s: float) -> None:
        self.loop.call_later(after_s, self._look_for_client, waited_s, after_s)

    def _look_for_client(self, waited_s: float, looked_after_s: float) -> None:
        """Hang up when a silent client, which `waited_s` after its request, is gone."""
        if self.transport.is_closing():
            return
        if peers.is_gone(self._wire.get_extra_info("socket"), waited_s):
            self._wire.abort()
        else:
            self._look_again(waited_s, min(2 * looked_after_s, MOST_LOOK_S))

    def _close(self) -> None:
        """Close; when the client still sends, not before it has had the time to read its answer."""
        if self._more_comes and len(Lingering.every) < MOST_LINGERING:
            Lingering(self._wire, self.loop)
            self.connection_lost(None)
        else:
            self._wire.close()

    def _give_up(self) -> None:
        if not self._head_bytes and self._is_idle:  # it was opened ahead, as browsers do
            self.transport.close()
            return
        self._answer(408, "request_timeout", f"No whole request came within {REQUEST_S:.0f} s.")

    def _answer(self, status: int, code: str, detail: str) -> None:
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
