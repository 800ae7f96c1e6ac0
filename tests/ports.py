"""Ports for servers that have to be told one, or whose port is needed again when they come back.

They are below those that the system gives to whoever asks for any, so that nobody gets them in the
meantime: Linux begins at 32768 (ip_local_port_range), macOS at 49152. Ray's workers end at 19999.
"""

import errno
import itertools
import os
import random
import socket

LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
FIRST, ALL = 20_000, 12_000
_EACH = ALL // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # the processes of one run
_OWN = FIRST + _EACH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_offsets = itertools.count(random.SystemRandom().randrange(_EACH))  # none twice before all


def free_port() -> int:
    """Return a port on which nobody listens."""
    for offset in itertools.islice(_offsets, _EACH):
        port = _OWN + offset % _EACH
        if not any(_is_taken(*address, port) for address in LOOPBACK):
            return port
    raise OSError("all ports are taken")


def _is_taken(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.bind((host, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE  # otherwise there is no such address here
    return False
