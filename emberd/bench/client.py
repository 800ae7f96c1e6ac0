"""The client that measures: the cheapest correct HTTP, bytes in and bytes out.

It is deliberately not `emberd.client`: it shares the processor with the server that it measures, so
its own cost would be measured, too. It parses only what is needed, runs many clients in one thread,
and can also ask servers that are not emberd.
"""

import json
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import urlsplit

from emberd.errors import EmberdError, NoServerError

LONGEST_ANSWER_S = 600.0
FRESH = {"X-Emberd-Cache": "false"}  # neither from disk, nor together with others who ask


class RefusedError(EmberdError):
    """A server that is being measured answered with a status other than 200."""

    code = "bench_refused"


class ClosedError(NoServerError):
    """The server closed the connection before it answered."""

    code = "bench_closed"


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server answers, and how to ask it for vectors.

    `dialect` is `native` (`/embed`: emberd's and that of the server it replaces) or `openai`
    (`/v1/embeddings`, below `prefix`).
    """

    host: str
    port: int
    dialect: str = "native"
    model: str | None = None
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str, *, model: str | None = None, dialect: str = "native") -> "Server":
        """Return the server at an address such as `http://127.0.0.1:8767`.

        Raises:
            NoServerError: it is not an http address.
        """
        try:
            parts = urlsplit(url if "//" in url else f"//{url}")
            host, port = parts.hostname, parts.port or 80
        except ValueError:  # a port that is not a number
            host, port = None, 0
        if not host or parts.scheme not in ("", "http"):
            raise NoServerError(
                f"{url} is not the address of a server.",
                hint="Write it as http://HOST:PORT.",
            )
        return cls(host, port, dialect, model, parts.path.rstrip("/"))

    @property
    def path(self) -> str:
        """The path that texts are posted to."""
        return self.prefix + ("/embed" if self.dialect == "native" else "/v1/embeddings")

    def body(self, texts: Sequence[str]) -> bytes:
        """Return the body of a request that embeds these texts."""
        content: dict[str, Any] = {"texts" if self.dialect == "native" else "input": texts}
        if self.model:
            content["model"] = self.model
        return json.dumps(content).encode()

    def vectors(self, answer: bytes) -> list[list[float]]:
        """Return the vectors of an answer, in the order of the texts.

        Raises:
            RefusedError: it has none.
        """
        try:
            content = json.loads(answer)
            if self.dialect == "native":
                found: list[list[float]] = content["embeddings"]
                return found
            rows = sorted(content["data"], key=lambda row: row["index"])
            return [row["embedding"] for row in rows]
        except (ValueError, KeyError, TypeError):
            raise RefusedError(f"{self.path} answered without vectors.") from None

    def get(self, path: str) -> bytes:
        """Return a GET request."""
        return self._head("GET", path)

    def post(self, path: str, body: bytes = b"") -> bytes:
        """Return a POST request with a JSON body."""
        kind = "Content-Type: application/json\r\n" if body else ""
        return self._head("POST", path, f"{kind}Content-Length: {len(body)}\r\n") + body

    def embed(self, texts: Sequence[str]) -> bytes:
        """Return the request that embeds texts, and has emberd compute each of them."""
        return replace(self, headers={**FRESH, **self.headers}).post(self.path, self.body(texts))

    def _head(self, method: str, path: str, more: str = "") -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{method} {path} HTTP/1.1\r\nHost: {host}:{self.port}\r\n{own}{more}\r\n".encode()


class Connection:
    """One keep-alive connection; a context manager. `ask` is one request and its whole answer."""

    def __init__(self, server: Server) -> None:
        """Connect. Raises NoServerError."""
        self.server = server
        try:
            self.socket = socket.create_connection(
                (server.host, server.port), timeout=LONGEST_ANSWER_S
            )
        except OSError as error:
            raise NoServerError(
                f"No server answers at {server.host}:{server.port}: {error.strerror or error}."
            ) from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._needed = 0  # bytes of the whole answer, once its head is here

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> bytes:
        """Send a request, return the body of its answer.

        Raises:
            RefusedError: it is not 200.
            NoServerError: the connection was closed.
        """
        self.send(request)
        while (body := self.receive()) is None:
            pass
        return body

    def send(self, request: bytes) -> None:
        """Send a request. Raises ClosedError."""
        try:
            self.socket.sendall(request)
        except OSError as error:
            raise ClosedError(f"The server hung up: {error.strerror or error}.") from None

    def receive(self) -> bytes | None:
        """Read once; return the body when the answer is complete. Raises as `ask`."""
        try:
            part = self.socket.recv(1 << 18)
        except ConnectionError as error:
            raise ClosedError(f"The server hung up: {error.strerror or error}.") from None
        except OSError as error:
            raise NoServerError(f"The server stopped answering: {error}.") from None
        if not part:
            raise ClosedError("The server closed the connection before it answered.")
        self._received += part
        if not self._needed and not self._read_head():
            return None
        if len(self._received) < self._needed:
            return None
        head, _, body = bytes(self._received).partition(b"\r\n\r\n")
        self._received.clear()
        self._needed = 0
        if not head.startswith(b"HTTP/1.1 200"):
            status = head.split(b"\r\n", 1)[0].decode(errors="replace")
            raise RefusedError(f"{status}: {body[:300].decode(errors='replace')}")
        return body

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
        if not length.isdigit():
            raise RefusedError("The answer has no Content-Length.")
        self._needed = end + 4 + int(length)
        return True


def ask_in_turns(
    server: Server, clients: int, seconds: float, request: Callable[[], bytes]
) -> tuple[list[float], float]:
    """Let clients ask at the same time, each one request after another, and none after `seconds`.

    A server may close an idle connection between two requests. Then the client connects again, as
    HTTP clients do, and the clock keeps running.

    Returns:
        How long each answer took, and how long it took until the last one, in seconds.
    """
    with _Clients(server, seconds, request) as asking:
        for _ in range(clients):
            asking.connect(request(), time.perf_counter())
        while asking.wait():
            pass
        return asking.spent_s, time.perf_counter() - asking.began_s


class _Clients:
    """Connections that wait for their answers, in one thread."""

    def __init__(self, server: Server, seconds: float, request: Callable[[], bytes]) -> None:
        self.spent_s: list[float] = []
        self.began_s = time.perf_counter()
        self._until_s = self.began_s + seconds
        self._server = server
        self._request = request
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data[0].socket.close()
        self._selector.close()

    def connect(self, request: bytes, sent_s: float) -> None:
        """Open a connection and send a request, which is timed from `sent_s`."""
        connection = Connection(self._server)
        data = connection, request, sent_s
        self._selector.register(connection.socket, selectors.EVENT_READ, data)
        connection.send(request)

    def wait(self) -> bool:
        """Read what has come; return whether there is a connection left to wait for."""
        for key, _ in self._selector.select(LONGEST_ANSWER_S):
            connection, request, sent_s = key.data
            try:
                if connection.receive() is not None:
                    self._go_on(connection, sent_s)
            except ClosedError:
                if not self.spent_s or time.perf_counter() - sent_s >= LONGEST_ANSWER_S:
                    raise
                self._disconnect(connection)
                self.connect(request, sent_s)
        return bool(self._selector.get_map())

    def _go_on(self, connection: Connection, sent_s: float) -> None:
        """Record how long an answer took, and send the next request on its connection."""
        now_s = time.perf_counter()
        self.spent_s.append(now_s - sent_s)
        if now_s >= self._until_s:
            self._disconnect(connection)
            return
        request = self._request()
        data = connection, request, time.perf_counter()
        self._selector.modify(connection.socket, selectors.EVENT_READ, data)
        with suppress(ClosedError):  # reading will find it closed, and connect again
            connection.send(request)

    def _disconnect(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
