"""Connections that do nothing, end nothing, or are too many: others are answered meanwhile."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from emberd.pool.memory import memory_bytes
from emberd.server.timeouts import Timeouts
from tests.fuzz.talk import read_reply
from tests.serving import Server, wait_for

SLOW_LORIS = 1000


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=30)


@pytest.mark.slow
def test_a_thousand_slow_connections_keep_nobody_from_an_answer(home: Path) -> None:
    with Server(home) as own, ExitStack() as open_ones:
        for number in range(SLOW_LORIS):
            connection = open_ones.enter_context(connect(own))
            if number % 2:
                connection.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Le")

        for _ in range(5):
            own.embed("text")
        assert own.http.get("/health").status_code == 200


def test_what_is_no_http_is_told_so_in_json(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"hello\r\n\r\n")
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b'"code":"malformed_http"' in answer


@pytest.mark.parametrize(
    "endless", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"POST / HTTP/1.1\r\nX: y\r\nZ"]
)
def test_a_head_without_end_is_refused_while_it_is_small(server: Server, endless: bytes) -> None:
    before = memory_bytes(server.process.pid)
    for mib in (0.125, 64):
        with connect(server) as connection:
            connection.sendall(endless + b"a" * int(mib * 2**20))
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"head_too_large"' in answer
    assert memory_bytes(server.process.pid) - before < 16 * 2**20


EMBED = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"texts": ["a"]}'


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"x/1"])
@pytest.mark.parametrize("apart", [False, True])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    server: Server, protocol: bytes, apart: bool
) -> None:
    """Java's client tries HTTP/2 with its first request."""
    head = EMBED + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n" % protocol
    head += b"HTTP2-Settings: AAMAAABk\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(head if apart else head + BODY)
            if apart:
                time.sleep(0.05)
                connection.sendall(BODY)
            assert read_reply(connection, "POST").status == 200


def test_a_trailer_is_no_header(server: Server) -> None:
    trailers = b"Host: evil.example\r\nX-Emberd-Expect-Fingerprint: 0\r\nUpgrade: h2c\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(EMBED + chunked + trailers + b"\r\n")
            assert read_reply(connection, "POST").status == 200


def test_a_body_in_chunks_of_a_byte_is_no_large_head(server: Server) -> None:
    body = b'{"texts": ["%b"]}' % (b"a" * 100_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(EMBED + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert read_reply(connection, "POST").status == 200


@pytest.mark.slow
def test_a_client_that_hangs_up_in_mid_request_costs_nothing(home: Path) -> None:
    with Server(home) as own:
        own.embed("load")
        bare = b"POST /embed HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"
        for cut in (b"POST /em", bare, EMBED + b"Content-Length: 99\r\n\r\n{"):
            for _ in range(50):
                with connect(own) as connection:
                    connection.sendall(cut)

        own.embed("text")
        wait_for(lambda: own.log().count('"status":"hung_up"') == 50)
        assert own.row()["in_flight"] == 0
        assert '"status":400' not in own.log()
        assert "Traceback" not in own.log()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose worker may be suspended."""
    with Server(tmp_path_factory.mktemp("loaded")) as running:
        running.embed("load")
        yield running


@pytest.mark.parametrize("ending", [b"", EMBED, b"no HTTP\r\n\r\n"])
def test_a_client_that_has_sent_several_requests_and_hangs_up_is_no_error(
    loaded: Server, ending: bytes
) -> None:
    before = len(loaded.log())
    (worker,) = loaded.workers()
    worker.suspend()
    try:
        with connect(loaded) as connection:
            whole = EMBED + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
            connection.sendall(whole + whole + ending)
            time.sleep(0.1)  # the first one waits for the worker
        wait_for(lambda: '"status":"hung_up"' in loaded.log()[before:])
    finally:
        worker.resume()

    loaded.embed("text")
    assert '"level":"error"' not in loaded.log()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for a request for half a second."""
    with Server(tmp_path_factory.mktemp("quick"), timeouts=Timeouts(request_s=0.5)) as running:
        yield running


@pytest.mark.parametrize("sent", [EMBED[:60], EMBED + b"Content-Length: 9\r\n\r\n{", b"\r\n"])
def test_a_request_that_does_not_end_is_hung_up_on_with_a_408(quick: Server, sent: bytes) -> None:
    with connect(quick) as half:
        half.sendall(sent)

        answer = half.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer
        assert half.recv(4096) == b""


def test_a_connection_that_never_asked_is_closed_without_an_answer(quick: Server) -> None:
    """A pool of connections that were opened ahead would read it as that of its first request."""
    with connect(quick) as nothing:
        assert nothing.recv(4096) == b""


@pytest.mark.slow
@pytest.mark.parametrize("reads", [False, True])
def test_who_does_not_read_an_answer_is_hung_up_on(reads: bool, home: Path) -> None:
    """One who reads slowly is not."""
    timeouts = Timeouts(reading_s=8 if reads else 3)
    body = b'{"texts": [%b]}' % b",".join([b'"a"'] * 1500)
    with Server(home, timeouts=timeouts) as own, connect(own) as client:
        own.embed("load")
        client.sendall(EMBED + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        got, end = client.recv(2**16), b'"cached":0}'
        if not reads:
            wait_for(lambda: "does not read its answer" in own.log())
        with suppress(ConnectionError):
            while not got.endswith(end) and (more := client.recv(2**19)):
                got += more
                time.sleep(0.7 if reads else 0)  # in all longer than the limit

        assert got.endswith(end) == reads
        assert ("does not read its answer" in own.log()) != reads
        own.embed("others are answered")


@pytest.mark.slow
def test_more_connections_than_files_are_turned_away_and_the_rest_served(home: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        pytest.skip("this test itself needs 1,024 open files")
    with Server(home, rlimits={resource.RLIMIT_NOFILE: 200}) as own, ExitStack() as open_ones:
        own.http.get("/ready")  # a connection that is kept
        connections = [open_ones.enter_context(connect(own)) for _ in range(400)]
        own.embed("a worker is started meanwhile")
        time.sleep(1)  # asyncio tries again each second, and says so each time

        refused = connections[100].recv(4096)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in refused
        assert b'"code":"too_many_connections"' in refused
        open_ones.close()

        def answers() -> bool:
            with connect(own) as again:
                again.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return b" 200 OK" in again.recv(4096)

        wait_for(answers)
        assert len(own.log()) < 20_000
