"""Ports for servers that have to be told one, or whose port is needed again when they come back.

They are below those that the system gives to whoever asks for any, so that nobody gets them in the
meantime: Linux begins at 32768 (ip_local_port_range), macOS at 49152. Ray's workers end at 19999.
"""

import itertools
import os
import socket

FIRST, EACH, PROCESSES = 20_000, 1000, 12
_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % PROCESSES
_offsets = itertools.count(os.getpid())  # each is given out once


def free_port() -> int:
    """Return a port on which nobody listens."""
    for offset in itertools.islice(_offsets, EACH):
        port = FIRST + _process * EACH + offset % EACH
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError("all ports are taken")
