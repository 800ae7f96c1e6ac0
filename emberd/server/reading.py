"""Hang up on a client that does not read its answer, which would otherwise stay in memory."""

import asyncio
import logging

log = logging.getLogger("uvicorn.error")


class ReadingWatch:
    """Runs while more of an answer is buffered than the client takes.

    Some of it has to be read in `reading_s` seconds.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, reading_s: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._reading_s = reading_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Note how much is unread now, and look again later."""
        self.stop()
        unread_bytes = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._reading_s, self._look, unread_bytes)

    def stop(self) -> None:
        """Stop watching: the client reads, or is gone."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self, before_bytes: int) -> None:
        if self._transport.get_write_buffer_size() < before_bytes:
            self.start()
        else:
            log.warning("A client does not read its answer; hanging up.")
            self._transport.abort()
