"""Close a connection so that its client can still read the answer.

A socket that is closed with unread input resets the connection, and the client loses the answer
before it has read it. So the end is announced first, and what the client still sends is thrown away
until it closes. Source: RFC 9112, section 9.6.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from emberd.server.timeouts import Timeouts

MOST_LINGERING = 64  # connections at a time; any more are closed at once


class Lingering(asyncio.Protocol):
    """What is left of a connection that was answered while its client still sends."""

    every: ClassVar[set["Lingering"]] = set()

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, timeouts: Timeouts
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._silence_s = timeouts.silence_s
        self._until_s = loop.time() + timeouts.linger_s
        self._timeout = loop.call_later(self._silence_s, transport.abort)
        self.every.add(self)
        transport.set_protocol(self)
        with suppress(OSError):  # the client is gone already, which reading will show
            transport.write_eof()
        transport.resume_reading()

    @classmethod
    def has_room(cls) -> bool:
        """Whether one more connection may linger."""
        return len(cls.every) < MOST_LINGERING

    def data_received(self, data: bytes) -> None:
        """Discard what the client still sends."""
        del data
        self._timeout.cancel()
        until_s = min(self._until_s, self._loop.time() + self._silence_s)
        self._timeout = self._loop.call_at(until_s, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._timeout.cancel()
        self.every.discard(self)


class Closing:
    """A connection's transport whose `close` is the connection's own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close the connection, once."""
        if not self.is_closing():
            self._is_closed = True
            self._close()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._is_closed or self._transport.is_closing()
