"""Whether a client that sends no more is still there to be answered.

Who has hung up and who has only said that its request was all (`shutdown(SHUT_WR)`) send the same:
an end. The system knows more: of a Unix socket whether both directions are closed, of TCP between
processes of one Linux machine whether anybody still has the other end open. In other cases the
moment has to tell.
"""

import ipaddress
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # see proc_net_tcp(5), also for columns
FRESH_S = 0.1
AT_ONCE_S = 1.0  # who half-closes does it with the end of the request, who gives up does it later

Ends = tuple[str, str]  # one's own end of a connection, and the other

_known: Mapping[Ends, bool] = {}  # whether some process has it open
_read_s = -FRESH_S


def is_gone(here: socket.socket, waited_s: float) -> bool:
    """Say whether nobody reads what is written to `here`, which has come to its end.

    Args:
        here: a connected socket.
        waited_s: how long after its request the client sent that end.
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
    """Return the connections of this machine; read anew when it is not what it was just now."""
    global _known, _read_s  # noqa: PLW0603 - one machine, one table
    if time.monotonic() - _read_s > FRESH_S:
        _known = {}
        for table in TABLES:
            try:
                lines = table.read_text().splitlines()[1:]
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
