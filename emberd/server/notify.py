"""Tell systemd how the server is doing: one datagram per message, in sd_notify's protocol.

Source: the manual page sd_notify(3). Without a socket to write to, this does nothing.
"""

import socket
from contextlib import suppress

READY = "READY=1"
STOPPING = "STOPPING=1"


class Notifier:
    """Writes to `$NOTIFY_SOCKET`: a path, or `@name` for Linux's abstract sockets."""

    def __init__(self, address: str | None) -> None:
        # An abstract address begins with a null byte; systemd writes @ in its place.
        self._address = "\0" + address[1:] if address and address[0] == "@" else address

    def tell(self, *words: str) -> None:
        """Send assignments such as `READY=1`; a manager that is gone is not an error."""
        if not self._address:
            return
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            if hasattr(socket, "SOCK_CLOEXEC")
            else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line,
        ):
            line.settimeout(1.0)  # systemd reads at once; a full queue must not stop the server
            line.sendto("\n".join(words).encode(), self._address)
