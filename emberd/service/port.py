"""Finds the process that uses a TCP port or a Unix socket of this machine."""

import errno
import socket
from dataclasses import dataclass

import psutil

CONNECT_S = 3.0  # to a socket whose queue is full


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens; `pid` is None if it is another user's."""

    pid: int | None
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else self.name


def who_listens(port: int) -> Holder | None:
    """Return the process that listens on a port, as far as we may see it."""
    for process in psutil.process_iter(["pid", "name"]):
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return Holder(process.pid, process.name())
        except psutil.Error:
            continue  # another user's process
    return None


def who_holds_socket(path: str) -> Holder | None:
    """Return who listens on a Unix socket; None if nobody does.

    Raises:
        OSError: the path cannot be checked.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if any(str(one.laddr) == path for one in process.net_connections(kind="unix")):
                return Holder(process.pid, process.name())
        except psutil.Error:
            continue  # another user's process
    return Holder(None, "a process of another user")


def who_holds(host: str, port: int) -> Holder | None:
    """Return who keeps us from listening there; None if the port is free.

    Raises:
        OSError: nobody can listen on that address.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)  # with SO_REUSEADDR, some systems refuse only here
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return who_listens(port) or Holder(None, "a process of another user")
    return None
