"""A process of clients, or of null servers, as cheap as Python can be: see `load.py`.

    python benchmarks/load_client.py ask           reads a job and when to start, prints answers
    python benchmarks/load_client.py null BYTES    answers every request with so many bytes

Requests are built before the clock starts. Answers are read to their last byte and never decoded.
"""

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

END_OF_HEAD = b"\r\n\r\n"
READ_BYTES = 1 << 20
LONGEST_ANSWER_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Connections that each send one request after the other, whole ones with their heads.

    Each takes the next of `requests`, round and round. If `drain`, the answers to all that was sent
    are waited for; otherwise nothing is, once the time is up.
    """

    host: str
    port: int
    connections: int
    requests: Sequence[str]
    drain: bool


class Reader:
    """Reads one message after another from a socket, and keeps nothing but the first bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.head = b""
        self._left = 0  # bytes of the message that have not come

    def read(self, buffer: memoryview) -> bool:
        """Read once; say whether the message is complete. Raises ConnectionError."""
        count = self.socket.recv_into(buffer)
        if not count:
            raise ConnectionError("The connection was closed.")
        if self._left:
            self._left -= count
            return self._left <= 0
        self.head += bytes(buffer[:count])
        end = self.head.find(END_OF_HEAD)
        if end < 0:
            return False
        self._left = end + len(END_OF_HEAD) + content_length(self.head[:end]) - len(self.head)
        return self._left <= 0

    def next(self) -> None:
        """Be ready for another message."""
        self.head, self._left = b"", 0


def content_length(head: bytes) -> int:
    """Return what a head says about the length of the body; 0 if it has none."""
    stated = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
    return int(stated) if stated else 0


class Asking:
    """A connection, and the request whose answer it waits for."""

    def __init__(self, address: tuple[str, int]) -> None:
        connection = socket.create_connection(address, timeout=LONGEST_ANSWER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader(connection)
        self.place = 0
        self.sent_s = 0.0

    def send(self, request: bytes, place: int) -> None:
        """Send a request."""
        self.reader.next()
        self.place, self.sent_s = place, time.monotonic()
        self.reader.socket.sendall(request)

    def check(self) -> None:
        """End the process if the answer is not 200."""
        if not self.reader.head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"the server answered {self.reader.head[:300].decode(errors='replace')}")


def ask(job: Job) -> dict[str, Any]:
    """Run a job. Times are on the monotonic clock, which all processes of a machine share.

    Returns:
        `answered`: for each answer the place of its request, and when that was sent and answered;
        `cpu_s`: the processor time that this took here.
    """
    requests: Iterator[tuple[bytes, int]] = cycle(
        [(request.encode(), place) for place, request in enumerate(job.requests)]
    )
    asking = [Asking((job.host, job.port)) for _ in range(job.connections)]
    selector = selectors.DefaultSelector()
    for each in asking:
        selector.register(each.reader.socket, selectors.EVENT_READ, each)
    print("ready", flush=True)
    start_s, stop_s = json.loads(sys.stdin.readline())
    time.sleep(max(0.0, start_s - time.monotonic()))
    cpu_s = time.process_time()
    for each in asking:
        each.send(*next(requests))
    answered: list[tuple[int, float, float]] = []
    buffer = memoryview(bytearray(READ_BYTES))
    waiting = len(asking)
    while waiting and (job.drain or time.monotonic() < stop_s):
        left_s = LONGEST_ANSWER_S if job.drain else max(0.0, stop_s - time.monotonic())
        for key, _ in selector.select(left_s):
            each = key.data
            if not each.reader.read(buffer):
                continue
            now_s = time.monotonic()
            each.check()
            answered.append((each.place, each.sent_s, now_s))
            if now_s < stop_s:
                each.send(*next(requests))
            else:
                waiting -= 1
    return {"answered": answered, "cpu_s": time.process_time() - cpu_s}


def null(size: int) -> None:
    """Print a port, and answer every request there with `size` bytes, until stdin closes."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"0" * size
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ, None)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    buffer = memoryview(bytearray(READ_BYTES))
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.data is None:
                connection, _ = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, Reader(connection))
                continue
            try:
                if key.data.read(buffer):
                    key.data.next()
                    key.data.socket.sendall(answer)
            except ConnectionError:
                selector.unregister(key.fileobj)
                key.data.socket.close()


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        print(json.dumps(ask(Job(**json.loads(sys.stdin.readline())))))
    else:
        null(int(sys.argv[2]))
