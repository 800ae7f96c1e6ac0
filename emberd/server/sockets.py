"""The sockets that a server listens on: TCP, Unix, or both. What is unsafe is refused."""

import errno
import ipaddress
import os
import socket
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

from emberd.config.settings import ServerSettings
from emberd.errors import ConfigError, PortTakenError

MOST_WAITING = 2048  # connections that the system holds until the server begins to accept
LOOPBACKS = ("127.0.0.1", "::1")
ATTEMPTS = 20  # to find a port that is free on both
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
LONGEST_PATH = 103  # bytes; what sun_path holds on macOS, 107 on Linux


def listen(settings: ServerSettings, *, has_token: bool) -> list[socket.socket]:
    """Return listening sockets, TCP first.

    Raises:
        ConfigError: there is nothing to listen on, the socket's folder is not safe, or other
            machines could ask without a token.
        PortTakenError: the address cannot be bound.
    """
    if settings.port is None and settings.socket is None:
        raise ConfigError(
            "server.port is off and there is no server.socket: nothing to listen on.",
            hint="Set one of them.",
        )
    found = []
    if settings.port is not None:
        found += _tcp(settings, has_token=has_token)
    if settings.socket is not None:
        try:
            found.append(_unix(Path(settings.socket)))
        except BaseException:
            for listener in found:
                listener.close()
            raise
    return found


def sockets_of(listeners: list[socket.socket]) -> list[tuple[Path, int]]:
    """Return path and inode of each Unix socket, for `remove`."""
    paths = [Path(one.getsockname()) for one in listeners if one.family == socket.AF_UNIX]
    return [(path, path.stat().st_ino) for path in paths]


def remove(sockets: list[tuple[Path, int]]) -> None:
    """Remove the files of Unix sockets that are still ours."""
    for path, inode in sockets:
        with suppress(OSError):
            if path.lstat().st_ino == inode:
                path.unlink()


def _tcp(settings: ServerSettings, *, has_token: bool) -> list[socket.socket]:
    """Return a socket for the address; two for `localhost`, on the same port.

    Some clients try one of its addresses first, some the other: both have to reach this server.
    """
    if settings.host != "localhost":
        return [_bound(settings, settings.host, settings.port, has_token=has_token)]
    for _ in range(ATTEMPTS):
        first = _bound(settings, LOOPBACKS[0], settings.port, has_token=has_token)
        port = first.getsockname()[1]
        try:
            return [first, _bound(settings, LOOPBACKS[1], port, has_token=has_token)]
        except PortTakenError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_SUCH_ADDRESS:
                return [first]  # a machine without IPv6
            first.close()
            if settings.port:
                raise
    raise PortTakenError(
        "No port is free on both 127.0.0.1 and ::1.", hint="Choose one with `--port`."
    )


def _bound(
    settings: ServerSettings, host: str, port: int | None, *, has_token: bool
) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
    except (OSError, ValueError) as error:  # not the name of a host
        raise _cannot(host, port, error) from error
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if not (ip.is_loopback or has_token or settings.allow_open):
        raise ConfigError(
            f"server.host {host} can be reached from other machines, and no token is set.",
            hint="Set server.token_file or EMBERD_TOKEN, listen on 127.0.0.1, or say"
            " `--allow-open` (server.allow_open: true) if everybody may ask.",
        )
    with ExitStack() as undone:
        try:
            listener = undone.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(MOST_WAITING)
        except (OSError, OverflowError) as error:
            raise _cannot(host, port, error) from error
        undone.pop_all()
    return listener


def _cannot(host: str, port: int | None, error: Exception) -> PortTakenError:
    from emberd.client import finding
    from emberd.client.address import Address
    from emberd.running import url_of
    from emberd.service.port import who_listens

    taken = getattr(error, "errno", None) == errno.EADDRINUSE
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    hint = "Choose an address of this machine with `--host`, and a port above 1023."
    if taken:
        holder = who_listens(port or 0)
        reason += f", held by {holder}" if holder else ""
        reason += (
            ", an emberd of another home" if finding.answers(Address(url_of(host, port))) else ""
        )
        hint = "End that process, or choose another port with `--port`."
    shown = f"[{host}]" if ":" in host else host
    return PortTakenError(f"emberd cannot listen on {shown}:{port}: {reason}.", hint=hint)


def _unix(path: Path) -> socket.socket:
    """Return a socket of mode 0600 at `path`, replacing one that nobody listens on."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise _no_socket(path, f"a socket's path has at most {LONGEST_PATH} bytes")
    try:
        _check_parent(path)
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(MOST_WAITING)
    except OSError as error:
        raise _no_socket(path, (error.strerror or str(error)).lower()) from None
    return listener


def _check_parent(path: Path) -> None:
    """Refuse a folder in which another user could replace the socket."""
    status = path.parent.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise _no_socket(path, "its folder belongs to another user")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise _no_socket(path, "others can write to its folder")


def _clear(path: Path) -> None:
    """Remove a socket that a server left behind; refuse anything else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise _no_socket(path, "a file that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise PortTakenError(
        f"Another process listens on {path}.", hint="End it, or choose another server.socket."
    )


def _no_socket(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"server.socket: {path}: {reason}.",
        hint="Choose a path in a folder of yours, such as ~/.local/state/emberd/emberd.sock.",
    )
