"""The cheapest HTTP client that is right: one kept connection, bytes in, bytes out.

It shares the processor cores with the server that it measures, so it parses nothing that nobody
looks at.
"""

import json
import socket
from collections.abc import Sequence
from typing import Self

LONGEST_ANSWER_S = 300.0


class ServerRefusedError(Exception):
    """The answer was not 200."""


class Client:
    """One connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._host = f"127.0.0.1:{port}"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LONGEST_ANSWER_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def get(self, path: str) -> bytes:
        """Return the body of the answer."""
        return self._exchange(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    def post(self, path: str, body: bytes = b"") -> bytes:
        """Send JSON and return the body of the answer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return self._exchange(head.encode() + body)

    def _exchange(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = bytes(received[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while len(received) < end + 4 + length:
            received += self._receive()
        body = bytes(received[end + 4 :])
        if not head.startswith(b"http/1.1 200"):
            raise ServerRefusedError(f"{head.splitlines()[0].decode()}: {body[:300].decode()}")
        return body

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 18)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        return received


def embed_body(texts: Sequence[str]) -> bytes:
    """Return what `POST /embed` takes; both servers understand it."""
    return json.dumps({"texts": texts}).encode()
