"""The head of a short answer goes out together with its body, in one write.

uvicorn writes the head first: two system calls, and a client that is woken twice.
"""

import asyncio
from typing import Any

SHORT_BYTES = 2**16  # joining two of more would copy too much


class OneWrite:
    """What one answer is written to: its head waits for what follows it.

    `cycle` is uvicorn's request and response.
    """

    def __init__(self, transport: asyncio.Transport, cycle: Any) -> None:  # noqa: ANN401 - private
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None  # empty once it has been written
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write; the first that belongs to the answer is its head."""
        if self._head is None and self._cycle.response_started:
            self._head = data
            return
        if self._head:
            head, self._head = self._head, b""
            if len(data) <= SHORT_BYTES:
                data = b"".join((head, data))
            else:
                self._transport.write(head)
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection, after a head that nothing followed."""
        if self._head:
            self.write(b"")
        self._transport.close()
