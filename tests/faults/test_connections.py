"""Connections that do nothing, end nothing, or are too many: others are answered meanwhile."""

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.serving import Server, wait_for

SLOW_LORIS = 1000


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=30)


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


def test_a_client_that_hangs_up_in_mid_request_costs_nothing(home: Path) -> None:
    with Server(home) as own:
        own.embed("load")
        for cut in (b"POST /em", b"POST /embed HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"):
            for _ in range(50):
                with connect(own) as connection:
                    connection.sendall(cut)

        own.embed("text")
        assert own.row()["in_flight"] == 0
        assert "Traceback" not in own.log()


def test_a_request_that_does_not_end_is_hung_up_on_with_a_408(home: Path) -> None:
    quick = "from emberd.cli import connections; connections.REQUEST_S = 1"
    with Server(home, before=quick) as own, connect(own) as half, connect(own) as nothing:
        half.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Le")

        for connection in (half, nothing):
            answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"request_timeout"' in answer
            assert connection.recv(4096) == b""


def test_more_connections_than_files_are_turned_away_and_the_rest_served(home: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        pytest.skip("this test itself needs 1,024 open files")
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))"
    with Server(home, before=few) as own, ExitStack() as open_ones:
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
