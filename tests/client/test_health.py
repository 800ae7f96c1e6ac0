"""What a server says about itself is read without an error, whatever the server does."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from emberd.client.address import Address
from emberd.client.health import is_emberd, is_ready, read_health, read_health_of
from emberd.running import Running

HEALTH = {"status": "ok", "fingerprint": "f", "models": [], "version": "1"}


@contextmanager
def answering(content: bytes, status: int = 200, instance: str = "run") -> Iterator[int]:
    """Yield the port of a server that gives everything this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Emberd-Instance", instance)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def at(port: int) -> Address:
    return Address(f"http://127.0.0.1:{port}")


def test_emberd_is_known_by_its_fields() -> None:
    with answering(json.dumps(HEALTH).encode()) as port:
        health = read_health(at(port), timeout_s=10)

    assert health == HEALTH
    assert is_emberd(health)
    assert not is_emberd({"status": "ok"})
    assert not is_emberd(None)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'"text"', b""])
def test_what_is_not_an_object_is_nothing(content: bytes) -> None:
    with answering(content) as port:
        assert read_health(at(port), timeout_s=10) is None


def test_another_run_than_the_one_that_noted_itself_is_nothing() -> None:
    with answering(json.dumps(HEALTH).encode()) as port:
        noted = Running(1, "0.0.0.0", port, "1", None, "run")  # noqa: S104 - asked on loopback
        other = Running(1, "127.0.0.1", port, "1", None, "another run")

        assert read_health_of(noted, timeout_s=10) == HEALTH
        assert read_health_of(other, timeout_s=10) is None


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_readiness_is_a_status(status: int, ready: bool) -> None:
    with answering(b"{}", status) as port:
        assert is_ready(at(port), timeout_s=10) is ready


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_and_somebody_silent_are_no_errors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert read_health(at(silent.getsockname()[1]), timeout_s=0.1) is None
    assert read_health(at(1), timeout_s=1) is None
    assert read_health(Address("http://localhost", "/nowhere/s"), timeout_s=1) is None
    assert not is_ready(Address("http://[broken"), timeout_s=1)
