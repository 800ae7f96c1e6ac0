"""Whether a client that sends no more is still there to be answered.

A client that hung up and one that only closed its sending side (`shutdown(SHUT_WR)`) look the same:
both send an end. The system knows more: for a Unix socket, whether both directions are closed; for
TCP within one Linux machine, whether any process still has the other end open. Otherwise the time
between request and end has to decide.
"""

import asyncio
import ipaddress
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from emberd import files

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # see proc_net_tcp(5), also for columns
FRESH_S = 0.1
AT_ONCE_S = 1.0  # a half-close comes right after the request; giving up comes later
FIRST_LOOK_S, MOST_LOOK_S = 0.05, 1.0  # between two looks at whether a silent client is there

Ends = tuple[str, str]  # one's own end of a connection, and the other

_known: Mapping[Ends, bool] = {}  # whether some process has it open
_read_s = -FRESH_S


class SilentWatch:
    """Hangs up on a client that sends no more, once it is gone."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, waited_s: float
    ) -> None:
        """Begin to watch; `waited_s` as for `is_gone`."""
        self._transport = transport
        self._loop = loop
        self._waited_s = waited_s
        self._look_in(FIRST_LOOK_S)

    def _look_in(self, after_s: float) -> None:
        self._loop.call_later(after_s, self._look, after_s)

    def _look(self, looked_after_s: float) -> None:
        if self._transport.is_closing():
            return
        if is_gone(self._transport.get_extra_info("socket"), self._waited_s):
            self._transport.abort()
        else:
            self._look_in(min(2 * looked_after_s, MOST_LOOK_S))


def is_gone(here: socket.socket, waited_s: float) -> bool:
    """Return whether nobody reads what is written to `here`, whose client has sent an end.

    Args:
        here: a connected socket.
        waited_s: the time between the client's request and that end.
    """
    poll = select.poll()
    poll.register(here.fileno(), 0)
    if poll.poll(0):  # nothing was asked for: POLLHUP or POLLERR
        return True
    if here.family == socket.AF_UNIX:
        return False
    has_owner = _owners().get((_as_listed(here.getpeername()), _as_listed(here.getsockname())))
    return waited_s > AT_ONCE_S if has_owner is None else not has_owner


def _owners() -> Mapping[Ends, bool]:
    """Return the TCP connections of this machine, as of at most `FRESH_S` ago."""
    global _known, _read_s  # noqa: PLW0603 - one machine, one table
    if time.monotonic() - _read_s > FRESH_S:
        _known = {}
        for table in TABLES:
            try:
                lines = files.read(table).decode().splitlines()[1:]
            except OSError:
                continue  # not Linux, or without IPv6
            columns = (line.split(maxsplit=10) for line in lines)
            _known |= {(each[1], each[2]): each[9] != "0" for each in columns}
        _read_s = time.monotonic()
    return _known


def _as_listed(address: tuple[str, int]) -> str:
    """Return an address as the table has it: words of 32 bits in the machine's order, and port."""
    host, port = address[:2]
    ip = ipaddress.ip_address(host.partition("%")[0])
    packed = (getattr(ip, "ipv4_mapped", None) or ip).packed
    words = (socket.ntohl(int.from_bytes(packed[at : at + 4])) for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
