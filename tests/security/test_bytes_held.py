"""What all requests together may hold: bodies that come, texts that wait, answers nobody reads."""

import json
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2
import orjson
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.config.settings import MOST_BODY_BYTES
from emberd.server.timeouts import Timeouts
from emberd.worker import wire
from tests.faults.test_connections import EMBED, connect
from tests.security.test_sizes import MIB, most_bytes
from tests.serving import Server, wait_for

BIG = 15 * MIB
MANY = 60


def held_bytes(server: Server) -> int:
    """Return what the server says that requests hold."""
    metrics = server.http.get("/metrics").text
    found = re.search(r"^emberd_held_bytes (\S+)$", metrics, re.M)
    assert found
    return int(float(found[1]))


@contextmanager
def stopped_worker(server: Server) -> Iterator[None]:
    """Load the model, and have its worker do nothing meanwhile."""
    server.embed("load")
    worker = psutil.Process(server.row()["pid"])
    worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.send_signal(signal.SIGCONT)


def body_of(size_bytes: int, first: str = "") -> bytes:
    """Return a request of one text of so many bytes, words of four letters."""
    text = first.encode() + b"word " * (size_bytes // 5)
    return b'{"texts": ["%b"]}' % text


def head_of(size_bytes: int) -> bytes:
    return EMBED + b"Content-Length: %d\r\n\r\n" % size_bytes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize("first", ["", "🔥"], ids=["a byte a character", "four bytes a character"])
def test_sixty_large_bodies_at_once_are_mostly_refused_and_cost_less_than_a_gib(
    home: Path, first: str
) -> None:
    """One character beyond 16 bits makes Python keep all of a text at four bytes each."""
    body = body_of(BIG, first)
    with Server(home) as own, ThreadPoolExecutor(MANY) as threads:
        with stopped_worker(own):
            asked = [threads.submit(send, own, body) for _ in range(MANY)]
            wait_for(lambda: sum(each.done() for each in asked) >= MANY // 2)
            wait_for(lambda: arrived(own))
        answers = [each.result() for each in asked]

        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "queue_full"
        assert refused.headers["retry-after"] == "1"
        assert "limits.max_queued_bytes" in refused.json()["hint"]
        assert most_bytes(own) < 1024 * MIB
        assert own.embed("text")["usage"]["tokens"] == 3
        wait_for(lambda: held_bytes(own) == 0)


def arrived(server: Server) -> bool:
    """Whether what was let in waits for the worker."""
    row = server.row()
    return bool(row["in_flight"] + row["queued"])


def send(server: Server, body: bytes) -> httpx2.Response:
    """POST it over a connection of its own."""
    headers = {"Content-Type": "application/json"}
    return httpx2.post(f"{server.url}/embed", content=body, headers=headers, timeout=60)


@pytest.mark.slow
def test_one_request_alone_is_never_refused_for_its_size(home: Path) -> None:
    with Server(home, config="limits: {max_queued_bytes: 1KiB}") as own:
        assert send(own, body_of(MIB)).status_code == 200

        with stopped_worker(own), ThreadPoolExecutor(1) as thread:
            first = thread.submit(send, own, body_of(MIB))
            wait_for(lambda: own.row()["in_flight"])
            for path, body in (("/embed", body_of(10)), ("/load", b"{}"), ("/unload", b"{}")):
                headers = {"Content-Type": "application/json"}
                second = own.http.post(path, content=body, headers=headers)
                assert (second.status_code, second.json()["code"]) == (429, "queue_full")
            (worker,) = own.workers()
            worker.send_signal(signal.SIGCONT)
            assert first.result().status_code == 200


def test_a_body_without_a_length_is_counted_as_it_comes(home: Path) -> None:
    with Server(home, config="limits: {max_queued_bytes: 2MiB}") as own, connect(own) as slow:
        slow.sendall(EMBED + b"Transfer-Encoding: chunked\r\n\r\n100000\r\n" + b" " * MIB + b"\r\n")
        wait_for(lambda: held_bytes(own) >= MIB)

        def chunks() -> Iterator[bytes]:
            for _ in range(4):
                yield b" " * MIB

        headers = {"Content-Type": "application/json"}
        refused = own.http.post("/embed", content=chunks(), headers=headers)

        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        slow.close()
        wait_for(lambda: held_bytes(own) == 0)


@pytest.mark.slow
def test_what_is_only_announced_keeps_nobody_out(home: Path) -> None:
    with Server(home) as own, ExitStack() as open_ones:
        for _ in range(100):
            connection = open_ones.enter_context(connect(own))
            connection.sendall(head_of(BIG) + b"{")

        wait_for(lambda: held_bytes(own) == 100)
        assert own.embed("text")["model"] == "minilm"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_bodies_that_stop_before_their_end_hold_no_more_than_the_limit(home: Path) -> None:
    part = body_of(BIG)[: 14 * MIB]
    with Server(home, config="limits: {max_queued_bytes: 64MiB}") as own, ExitStack() as open_ones:
        for _ in range(30):
            connection = open_ones.enter_context(connect(own))
            connection.settimeout(10)
            with suppress(OSError):  # a refused body may be cut off
                connection.sendall(head_of(BIG) + part)

        assert 50 * MIB < held_bytes(own) <= 64 * MIB
        assert most_bytes(own) < 256 * MIB
        open_ones.close()
        wait_for(lambda: held_bytes(own) == 0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", json.dumps({"texts": ["a"] * 2000})),
        ("/v1/embeddings", json.dumps({"input": ["a"] * 4000, "encoding_format": "base64"})),
        ("/tokenize", json.dumps({"inputs": "字" * 150_000}, ensure_ascii=False)),
    ],
    ids=["numbers", "base64", "tokens"],
)
def test_answers_that_nobody_reads_hold_no_more_than_the_limit(
    home: Path, path: str, body: str
) -> None:
    """Half a KiB of text may become megabytes of JSON, which wait for a client that is slow.

    An answer has to be larger than what Linux keeps for a connection, 4 MiB (`tcp_wmem`).
    """
    content = body.encode()
    head = EMBED.replace(b"/embed", path.encode()) + b"Content-Length: %d\r\n\r\n" % len(content)
    limits, patient = "limits: {max_queued_bytes: 32MiB, max_texts: 4000}", Timeouts(reading_s=600)
    with Server(home, config=limits, timeouts=patient) as own, ExitStack() as open_ones:
        own.embed("load")
        statuses: Counter[bytes] = Counter()
        for _ in range(30):
            connection = open_ones.enter_context(connect(own))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            connection.sendall(head + content)
            statuses[connection.recv(12)] += 1

        assert set(statuses) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert most_bytes(own) < 256 * MIB
        assert 0 < held_bytes(own) <= 40 * MIB
        open_ones.close()
        wait_for(lambda: held_bytes(own) == 0)
        own.embed("text")


def test_a_body_that_no_frame_takes_is_refused_and_kills_no_worker(home: Path) -> None:
    with Server(home, entry="tests.small_frames") as own:
        own.embed("load")
        (worker,) = own.workers()

        refused = send(own, body_of(2 * MIB))

        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        assert own.embed("text")["model"] == "minilm"
        assert own.workers() == [worker]


@given(st.text(), st.booleans())
def test_texts_take_no_more_room_in_a_frame_than_in_a_body(text: str, ascii_only: bool) -> None:
    body = json.dumps([text], ensure_ascii=ascii_only).encode(errors="replace")

    assert len(orjson.dumps(orjson.loads(body))) <= len(body)


def test_the_largest_body_leaves_room_in_a_frame() -> None:
    assert wire.MAX_HEADER_BYTES - MOST_BODY_BYTES >= MIB
