"""Who may use the server: Host and Origin protect against web pages, bearer tokens against anyone.

Host and Origin are not checked on a Unix socket, as no browser can reach it.
"""

import hmac
import ipaddress
import json
import logging
import os
import re
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from emberd.config.settings import ServerSettings
from emberd.config.tokens import read_token_file
from emberd.config.watch import QUIET_S
from emberd.errors import ConfigError, ForbiddenError, UnauthorizedError

FREE = frozenset({"/health", "/ready"})  # for watchdogs, which have no token
STRANGER = "emberd.stranger"  # key in a scope: a token is required, and there is no valid one
PAGE = ("/", "/ui")  # to look at: it has no data, and asks for the token
METHODS = "GET, POST"
EXPOSED = (
    "X-Request-Id, X-Emberd-Model, X-Emberd-Fingerprint, X-Emberd-Rows, X-Emberd-Dimensions,"
    " X-Emberd-Compute, X-Emberd-Instance, Retry-After, X-Should-Retry, WWW-Authenticate"
)
PREFLIGHT_S = 600
PREFLIGHT_VARIES = (
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers,"
    " Access-Control-Request-Private-Network"
)
HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[A-Za-z0-9._:\[\]-]{0,253}")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

log = logging.getLogger("emberd.api")


class BearerTokens:
    """The valid tokens: one from the environment, and those of a file, reread when it changes."""

    def __init__(self, token: str | None, file: Path | None) -> None:
        """Raises ConfigError: the file cannot be used."""
        self._own = (token,) if token else ()
        self._file = file
        self._seen = self._look()
        self._read = read_token_file(file) if file else ()

    @property
    def required(self) -> bool:
        """Whether requests need a token; always, once a file is configured."""
        return bool(self._own or self._file)

    def accepts(self, given: str) -> bool:
        """Whether this is a valid token; compares it with every one, each in constant time."""
        self._refresh()
        encoded = given.encode()
        matches = [hmac.compare_digest(encoded, token.encode()) for token in self._own + self._read]
        return any(matches)

    def _look(self) -> os.stat_result | None:
        try:
            return self._file.stat() if self._file else None
        except (OSError, ValueError):
            return None

    def _refresh(self) -> None:
        seen = self._look()
        if not self._file or _state(seen) == _state(self._seen) or _may_be_half(seen, self._seen):
            return
        self._seen = seen
        try:
            self._read = read_token_file(self._file)
        except ConfigError as error:
            log.warning("%s The tokens read before stay valid.", error.message)


def _state(status: os.stat_result | None) -> tuple[int, ...]:
    """Return the values that change when a file changes; an empty tuple if there is no file."""
    if status is None:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _may_be_half(now: os.stat_result | None, before: os.stat_result | None) -> bool:
    """Whether the file may still be half written: half a line would pass for a token."""
    if not now or not before or now.st_size >= before.st_size:
        return False
    return 0 <= time.time() - now.st_ctime < QUIET_S


class Access:
    """The access checks of one server."""

    def __init__(self, tokens: BearerTokens, server: ServerSettings) -> None:
        self._tokens = tokens
        self._listed = server
        hosts = (server.host, "localhost", *server.allowed_hosts)
        self._hosts = {host.lower().rstrip(".") for host in hosts}
        self._origins = {_as_sent(origin) for origin in server.allowed_origins}

    def check(self, scope: Scope, headers: Headers) -> None:
        """Let a request pass, or raise.

        Raises:
            ForbiddenError: its Host names another server, or its Origin is not allowed.
            UnauthorizedError: a token is required, and it has none or a wrong one.
        """
        if not on_unix_socket(scope):
            self._check_host(headers)
            self._check_origin(headers)
        if not self._tokens.required:
            return
        try:
            self._check_token(headers)
        except UnauthorizedError:
            if not (scope["path"] in FREE or is_page(scope) or self.is_preflight(scope, headers)):
                raise
            scope[STRANGER] = True

    def is_preflight(self, scope: Scope, headers: Headers) -> bool:
        """Whether this is a browser's CORS preflight for a page that is allowed."""
        return (
            scope["method"] == "OPTIONS"
            and "access-control-request-method" in headers
            and self._allows(headers.get("origin"))
        )

    def cors(self, headers: Headers, *, preflight: bool = False) -> dict[str, str]:
        """Return the CORS headers, which let allowed pages, and no others, read the answer.

        A page may send any header it asks for, as SDKs add their own.
        """
        if not self._origins:
            return {}
        answer = {"Vary": PREFLIGHT_VARIES if preflight else "Origin"}  # always, for caches
        origin = headers.get("origin")
        if origin is None or not self._allows(origin):
            return answer
        answer["Access-Control-Allow-Origin"] = origin
        if not preflight:
            return {**answer, "Access-Control-Expose-Headers": EXPOSED}
        answer["Access-Control-Allow-Methods"] = METHODS
        answer["Access-Control-Max-Age"] = str(PREFLIGHT_S)
        if wanted := headers.get("access-control-request-headers"):
            answer["Access-Control-Allow-Headers"] = wanted
        if "access-control-request-private-network" in headers:
            answer["Access-Control-Allow-Private-Network"] = "true"
        return answer

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and _as_sent(origin) in self._origins

    def _is_own(self, origin: str, headers: Headers) -> bool:
        """Whether a page comes from this server, by the Host that its browser asks.

        Not by every name that may be asked: a network's own DNS could lead `NAME.local` or
        `NAME.internal` here after a page was loaded from elsewhere.
        """
        scheme, _, place = _as_sent(origin).partition("://")
        host = headers.get("host", "")
        if scheme not in DEFAULT_PORTS or _as_sent(f"{scheme}://{host}") != f"{scheme}://{place}":
            return False
        name = _host_name(host) or ""
        return name in self._hosts or _is_address(name) or name.endswith(".localhost")

    def _check_host(self, headers: Headers) -> None:
        """Refuse the names of other servers, by which DNS rebinding shows itself."""
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if hosts and (name is None or not (name in self._hosts or _is_this_machine(name))):
            line = _line_to_add("allowed_hosts", self._listed.allowed_hosts, name or "", HOST)
            raise ForbiddenError(
                "The Host header names another server.",
                hint=f"Use 127.0.0.1 or localhost as the host, or {line}",
            )

    def _check_origin(self, headers: Headers) -> None:
        """Refuse foreign web pages."""
        origins = headers.getlist("origin")
        for origin in origins:
            if self._allows(origin) or self._is_own(origin, headers):
                continue
            listed = self._listed.allowed_origins
            line = _line_to_add("allowed_origins", listed, origin, ORIGIN)
            raise ForbiddenError(
                "Web pages from this origin may not use this server.",
                hint=f"If the page is yours, {line}",
            )

    def _check_token(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise token_required()
        if not self._tokens.accepts(given.strip()):
            raise UnauthorizedError(
                "The token is not valid for this server.",
                hint="Check it against server.token_file or EMBERD_TOKEN on the server.",
            )


def require_token(scope: Scope) -> None:
    """Raise UnauthorizedError if a token is required, and a free route was asked without one."""
    if scope.get(STRANGER):
        raise token_required()


def token_required() -> UnauthorizedError:
    """Return the error for requests that have no token."""
    return UnauthorizedError(
        "This server requires a token.",
        hint="Send the header `Authorization: Bearer TOKEN`; see docs/security.md.",
    )


def is_page(scope: Scope) -> bool:
    """Whether a request asks for a file of the page; see `web`."""
    path: str = scope["path"]
    return scope["method"] in ("GET", "HEAD") and (path in PAGE or path.startswith(f"{PAGE[1]}/"))


def on_unix_socket(scope: Scope) -> bool:
    """Whether a request came over a Unix socket: its server is a path and has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _as_sent(origin: str) -> str:
    """Return an origin as browsers send it: without a trailing slash or the default port.

    `app://` and `file://`, the origins of some desktop apps, are left as they are.
    """
    scheme, separator, place = origin.lower().partition("://")
    return scheme + separator + place.rstrip("/").removesuffix(DEFAULT_PORTS.get(scheme, "/"))


@lru_cache(maxsize=64)
def _host_name(host: str) -> str | None:
    """Return the name in a Host header, or None if it has none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") or None
    except ValueError:
        return None


def _is_this_machine(name: str) -> bool:
    """Whether a name can only mean this machine, whatever DNS says.

    No public name ends with `.localhost` (RFC 6761, 6.3) or `.internal` (reserved by ICANN for
    private networks since 2024, as in host.docker.internal), so a web page cannot rebind one.
    """
    if _is_address(name) or name.endswith((".localhost", ".internal")):
        return True
    own = socket.gethostname().lower().rstrip(".")  # each time: it may change while the server runs
    short = own.partition(".")[0]
    return bool(own) and name in (own, short, f"{short}.local")


def _line_to_add(key: str, listed: Sequence[str], wanted: str, form: re.Pattern[str]) -> str:
    """Say how to allow one more value; it is quoted only if it is well-formed."""
    if not form.fullmatch(wanted):
        return f"add it to server.{key} and restart emberd."
    line = json.dumps([*listed, wanted], ensure_ascii=False)
    return f"put `server: {{{key}: {line}}}` in the config file and restart emberd."


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
