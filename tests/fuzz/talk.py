"""Requests byte by byte over a kept connection, and whether an answer keeps the contract.

The contract is read from where it is written: /openapi.json for the statuses of each route,
docs/errors.md for the status of each code.
"""

import json
import re
import socket
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.api.dialects import ERROR, NATIVE, TEI
from tests.fuzz.cases import ANSWERS
from tests.serving import Server

DOCS = Path(__file__).parents[2] / "docs"
CODES = {
    code: int(status)
    for code, status in re.findall(r"^\| `(\w+)` \| (\d+) ", (DOCS / "errors.md").read_text(), re.M)
}
LIMIT_S = 30.0
SECRET = "Rumpelstilzchen"  # noqa: S105 - a text that must not be in a log

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `chunks` None: with a Content-Length, unless there is no body at all."""

    method: str
    target: bytes
    headers: tuple[Header, ...] = ()
    body: bytes | None = None
    chunks: tuple[int, ...] | None = None
    trailer: bytes = b""
    host: bytes | None = b"localhost"

    def to_bytes(self) -> bytes:
        """Return it as it is sent."""
        headers = list(self.headers)
        if self.host is not None:
            headers.insert(0, (b"Host", self.host))
        content = b""
        if self.body is not None and self.chunks is None:
            headers.append((b"Content-Length", b"%d" % len(self.body)))
            content = self.body
        elif self.body is not None:
            headers.append((b"Transfer-Encoding", b"chunked"))
            content = self._chunked(self.body)
        lines = [b"%b %b HTTP/1.1" % (self.method.encode(), self.target)]
        lines += [b"%b: %b" % header for header in headers]
        return b"\r\n".join([*lines, b"", b""]) + content

    def _chunked(self, body: bytes) -> bytes:
        parts, start = [], 0
        for size in (*(self.chunks or ()), len(body)):
            part = body[start : start + size]
            start += size
            if part:
                parts.append(b"%x\r\n%b\r\n" % (len(part), part))
        return b"".join([*parts, b"0\r\n", self.trailer, b"\r\n"])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `closes` when the connection ends with it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What it says."""
        assert self.headers["content-type"].startswith("application/json"), self
        return json.loads(self.body)


def read_reply(connection: socket.socket, method: str) -> Reply:
    """Read one answer. Raises ConnectionError: none came."""
    with closing(HTTPResponse(connection, method=method)) as response:
        response.begin()
        body = response.read()  # raises IncompleteRead
        headers = {name.lower(): value for name, value in response.getheaders()}
        ANSWERS[response.status] += 1
        return Reply(response.status, headers, body, response.will_close)


class Talk:
    """A conversation with one server: a connection that is kept while it can be."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: socket.socket | None = None
        paths = server.http.get("/openapi.json").json()["paths"]
        self._statuses = {
            (path, method.upper()): {int(status) for status in operation["responses"]}
            for path, methods in paths.items()
            for method, operation in methods.items()
        }

    def connect(self) -> socket.socket:
        """Open a connection of its own."""
        address = urlsplit(self._server.url)
        assert address.hostname and address.port
        return socket.create_connection((address.hostname, address.port), timeout=LIMIT_S)

    def ask(self, request: Request) -> Reply:
        """Send a request and check that its answer keeps the contract."""
        if self._connection is None:
            self._connection = self.connect()
        keep = False
        try:
            self._connection.sendall(request.to_bytes())
            reply = read_reply(self._connection, request.method)
            keep = not reply.closes
        finally:
            if not keep:
                self.close()
        self.check(request, reply)
        return reply

    def close(self) -> None:
        """Hang up."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def check(self, request: Request, reply: Reply) -> None:
        """Hold an answer against what the documents promise."""
        assert reply.status < 500 and reply.status != 429, reply
        assert reply.headers["x-request-id"], reply
        path = unquote(request.target.decode("latin-1").partition("?")[0]).rstrip("/") or "/"
        method = "GET" if request.method == "HEAD" else request.method
        allowed = self._statuses.get((template(path), method))
        if path == "/openapi.json":
            allowed = {200, 403, 405}
        assert reply.status in (allowed or {403, 404, 405}), (reply, request)
        if reply.status >= 400 and request.method != "HEAD":
            check_error(path, reply)


def template(path: str) -> str:
    """Return the route that a path belongs to."""
    inside = path.startswith("/v1/models/")
    return "/v1/models/{model}" if inside else path


def check_error(path: str, reply: Reply) -> None:
    """Check the shape of an error in the dialect of its path, and its code."""
    error = reply.json
    allowed = [NATIVE]
    if f"{path}/".startswith(("/v1/", "/api/")) or path == "/embeddings":
        allowed = [ERROR]
    elif path in ("/", "/info", "/tokenize"):
        allowed = [TEI]
    elif path == "/embed":
        allowed = [NATIVE, TEI]
    assert set(error) in allowed, (path, reply)
    if f"{path}/".startswith("/v1/") or path == "/embeddings":
        error = error["error"]
        assert set(error) == {"message", "type", "param", "code"}
    if "code" in error:
        assert CODES[error["code"]] == reply.status, reply
    assert len(reply.body) < 2000, "an error repeats what was sent"
