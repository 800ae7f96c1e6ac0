"""Connections that do nothing, end nothing, or are too many: others are answered meanwhile."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.serving import Server, clean_environ, wait_for

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


@contextmanager
def few_files(home: Path, files: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a server that may open this many files."""
    home.mkdir()
    log = home / "server.log"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}));"
    run = "from emberd.cli.main import main; main()"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", limit + run, "serve", "--port", "0"],
            stdout=out, stderr=out, env=clean_environ(home),
        )  # fmt: skip
    try:
        yield process, log
    finally:
        process.terminate()
        process.wait(30)


def test_more_connections_than_files_are_turned_away_and_the_rest_served(home: Path) -> None:
    from emberd.cli import running

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        pytest.skip("this test itself needs 1,024 open files")
    with few_files(home, 200) as (process, log), ExitStack() as open_ones:
        noted = wait_for(lambda: running.read(home / "state"))
        for _ in range(400):
            connection = socket.create_connection(("127.0.0.1", noted.port or 0), timeout=30)
            open_ones.enter_context(connection)
        time.sleep(1)  # asyncio tries again each second, and says so each time
        assert process.poll() is None
        open_ones.close()

        def answers() -> bool:
            with socket.create_connection(("127.0.0.1", noted.port or 0), timeout=30) as again:
                again.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return b" 200 OK" in again.recv(4096)

        assert wait_for(answers, within_s=30)
        assert log.stat().st_size < 20_000
