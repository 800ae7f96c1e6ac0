"""The client that measures, with a real server and one that speaks OpenAI's dialect."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from emberd.bench import measure
from emberd.bench.client import ClosedError, Connection, RefusedError, Server, ask_in_turns
from emberd.bench.stages import Pace, bench, detect, local_pid
from emberd.bench.texts import Texts
from tests.serving import Server as Emberd


class OpenAI(BaseHTTPRequestHandler):
    """Answers `/v1/embeddings` alone, and shuffled; a text that says so is refused."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # its answers are two packets

    def do_POST(self) -> None:
        """Embed."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts: list[str] = asked.get("input", [])
        if self.path != "/v1/embeddings" or "refuse" in texts:
            self._answer(400, {"error": "no"})
            return
        rows = [{"index": place, "embedding": [len(text), 1.0]} for place, text in enumerate(texts)]
        self._answer(200, {"data": rows[::-1], "usage": {"total_tokens": 7 * len(texts)}})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Be healthy."""
        self._answer(200, {"status": "ok"})

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def serving(handler: type[OpenAI]) -> Iterator[int]:
    """Run a server, and yield its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def openai() -> Iterator[str]:
    with serving(OpenAI) as port:
        yield f"http://127.0.0.1:{port}"


def test_vectors_come_as_the_server_gave_them(server: Emberd) -> None:
    found = Server.at(server.url)

    with Connection(found) as connection:
        vectors = found.vectors(connection.ask(found.embed(["one", "two"])))

    assert vectors == server.embed("one", "two")["embeddings"]


def test_the_order_of_texts_is_kept_in_openais_dialect(openai: str) -> None:
    found = detect(openai, None)

    with Connection(found) as connection:
        vectors = found.vectors(connection.ask(found.embed(["a", "bbb"])))

    assert found.dialect == "openai"
    assert vectors == [[1, 1.0], [3, 1.0]]


def test_a_refusal_is_an_error_that_shows_the_answer(openai: str) -> None:
    found = detect(f"{openai}/v1", None)

    with Connection(found) as connection, pytest.raises(RefusedError, match=r'400.*"error": "no"'):
        connection.ask(found.embed(["refuse"]))


def test_every_client_is_answered_and_each_asks_in_turn(server: Emberd) -> None:
    found = Server.at(server.url)
    server.embed("loads the model")
    sent: list[bytes] = []

    def request() -> bytes:
        sent.append(found.embed([f"text {len(sent)}"]))
        return sent[-1]

    spent_s, passed_s = ask_in_turns(found, 8, 0.2, request)

    assert len(spent_s) == len(sent) > 8
    assert max(spent_s) <= passed_s
    assert len(set(sent)) == len(sent)


def test_what_is_asked_beside_a_job_ends_with_it(openai: str) -> None:
    found = detect(openai, None)

    numbers = measure.job(found, Texts(1), Texts(2).passages(50))

    assert numbers["job_texts"] == 50
    assert numbers["job_query_samples"] > 0
    assert numbers["job_health_samples"] > 0
    assert numbers["job_health_p99_ms"] <= numbers["job_health_max_ms"]


def test_what_fails_beside_a_job_is_raised(openai: str) -> None:
    found = detect(openai, None)

    with pytest.raises(RefusedError), measure.watching(found, ["refuse"] * 9, health=False):
        measure.texts_per_s(found, ["text"] * 60, per_request=2)


def test_a_servers_process_is_found_on_this_machine_alone(openai: str) -> None:
    here = Server.at(openai)

    assert local_pid(here) == os.getpid()
    assert local_pid(replace(here, host="192.0.2.1")) is None


@pytest.mark.slow
def test_a_server_that_cannot_unload_is_measured_without_cold_starts(openai: str) -> None:
    found = detect(openai, None)

    results = bench(found, local_pid(found), lambda _: None, pace=Pace(stage_s=0.1)).to_dict()

    assert "cold_ms" not in results["numbers"]
    assert results["numbers"]["clients_requests_per_s"] > 0
    assert results["throughput"][0]["tokens_per_s"] > 0
    assert results["numbers"]["loaded_mib"] > 10  # this very process


def test_a_client_connects_again_when_its_kept_connection_was_closed() -> None:
    class Closes(OpenAI):
        """Hangs up after each answer without saying so, as a server does after a timeout."""

        def do_POST(self) -> None:
            """Embed, then close."""
            super().do_POST()
            self.close_connection = True

    with serving(Closes) as port:
        found = Server("127.0.0.1", port, "openai", "model")
        spent_s, _ = ask_in_turns(found, 4, 0.2, lambda: found.embed(["text"]))

    assert len(spent_s) > 4


def test_a_server_that_never_answers_is_an_error() -> None:
    class Hangs(OpenAI):
        """Closes instead of answering."""

        def do_POST(self) -> None:
            """Hang up."""
            self.close_connection = True

    with serving(Hangs) as port:
        found = Server("127.0.0.1", port, "openai", "model")
        with pytest.raises(ClosedError):
            ask_in_turns(found, 2, 0.2, lambda: found.embed(["text"]))
