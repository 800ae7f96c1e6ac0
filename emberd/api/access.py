"""Who may ask: Host and Origin for what a browser could be made to send, bearer tokens for all.

On a Unix socket Host and Origin are not checked: no browser reaches it.
"""

import hmac
import ipaddress
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from emberd.config.tokens import read_token_file
from emberd.config.watch import QUIET_S
from emberd.errors import ConfigError, ForbiddenError, UnauthorizedError

FREE = frozenset({"/health", "/ready"})  # for watchdogs, which have no token
METHODS = "GET, POST"
HEADERS = "Authorization, Content-Type, X-Emberd-Expect-Fingerprint"
EXPOSED = "X-Request-Id, X-Emberd-Model, X-Emberd-Fingerprint, X-Emberd-Rows, X-Emberd-Dimensions"
PREFLIGHT_S = 600

log = logging.getLogger("emberd.api")


class Tokens:
    """The tokens in force: one of the environment, those of a file, read again when it changes."""

    def __init__(self, token: str | None, file: Path | None) -> None:
        """Raises ConfigError: the file cannot be used."""
        self._own = (token,) if token else ()
        self._file = file
        self._seen = self._look()
        self._read = read_token_file(file) if file else ()

    @property
    def wanted(self) -> bool:
        """Whether a token is asked for; once a file is configured, always."""
        return bool(self._own or self._file)

    def accepts(self, given: str) -> bool:
        """Whether it is one of them. Every one is compared, each in constant time."""
        self._refresh()
        asked = given.encode()
        matches = [hmac.compare_digest(asked, token.encode()) for token in self._own + self._read]
        return any(matches)

    def _look(self) -> os.stat_result | None:
        try:
            return self._file.stat() if self._file else None
        except (OSError, ValueError):
            return None

    def _refresh(self) -> None:
        seen = self._look()
        if not self._file or _told(seen) == _told(self._seen) or _may_be_half(seen, self._seen):
            return
        self._seen = seen
        try:
            self._read = read_token_file(self._file)
        except ConfigError as error:
            log.warning("%s The tokens read before stay in force.", error.message)


def _told(status: os.stat_result | None) -> tuple[int, ...]:
    """Return what tells that a file has changed; nothing without one."""
    if status is None:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _may_be_half(now: os.stat_result | None, before: os.stat_result | None) -> bool:
    """Whether somebody may be writing it this moment: half a line would be a token, too."""
    if not now or not before or now.st_size >= before.st_size:
        return False
    return 0 <= time.time() - now.st_ctime < QUIET_S


class Access:
    """The checks of one server."""

    def __init__(self, tokens: Tokens, *, hosts: Collection[str], origins: Collection[str]) -> None:
        self._tokens = tokens
        self._hosts = {host.lower().rstrip(".") for host in hosts} | {"localhost"}
        self._origins = {origin.rstrip("/").lower() for origin in origins}

    def check(self, scope: Scope, headers: Headers) -> None:
        """Let a request pass, or raise.

        Raises:
            ForbiddenError: its Host names another server, or its page is not allowed.
            UnauthorizedError: a token is asked for, and it has none or a wrong one.
        """
        if not on_unix_socket(scope):
            self._check_host(headers)
            self._check_origin(headers)
        path = scope["path"].rstrip("/")
        if self._tokens.wanted and path not in FREE and not self.is_preflight(scope, headers):
            self._check_token(headers)

    def is_preflight(self, scope: Scope, headers: Headers) -> bool:
        """Whether a browser asks, before the request itself, if an allowed page may send it."""
        return (
            scope["method"] == "OPTIONS"
            and "access-control-request-method" in headers
            and self._allows(headers.get("origin"))
        )

    def cors(self, headers: Headers, *, preflight: bool = False) -> dict[str, str]:
        """Return the headers that let an allowed page see the answer; none for others."""
        origin = headers.get("origin")
        if origin is None or not self._allows(origin):
            return {}
        answer = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if not preflight:
            return {**answer, "Access-Control-Expose-Headers": EXPOSED}
        answer["Access-Control-Allow-Methods"] = METHODS
        answer["Access-Control-Allow-Headers"] = HEADERS
        answer["Access-Control-Max-Age"] = str(PREFLIGHT_S)
        if "access-control-request-private-network" in headers:
            answer["Access-Control-Allow-Private-Network"] = "true"
        return answer

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and origin.lower() in self._origins

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this server's: DNS rebinding."""
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if hosts and (name is None or (name not in self._hosts and not _is_address(name))):
            raise ForbiddenError(
                "The Host header names another server.",
                hint="Ask 127.0.0.1 or localhost, or add the name to server.allowed_hosts.",
            )

    def _check_origin(self, headers: Headers) -> None:
        """Refuse foreign web pages."""
        origins = headers.getlist("origin")
        if not all(self._allows(origin) for origin in origins):
            raise ForbiddenError(
                "Web pages of that origin may not ask this server.",
                hint="Add the origin to server.allowed_origins.",
            )

    def _check_token(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise UnauthorizedError(
                "This server asks for a token.",
                hint="Send the header `Authorization: Bearer TOKEN`; see docs/security.md.",
            )
        if not self._tokens.accepts(given.strip()):
            raise UnauthorizedError(
                "That token is not one of this server's.",
                hint="Compare it with server.token_file or EMBERD_TOKEN of the server.",
            )


def on_unix_socket(scope: Scope) -> bool:
    """Whether a request came over a Unix socket: its server is a path and has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _host_name(host: str) -> str | None:
    """Return the name in a Host header; None when there is none in it."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") or None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
