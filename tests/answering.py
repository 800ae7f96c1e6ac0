"""A small HTTP server that gives fixed answers, for what is asked of servers that are not ours."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

EMBERD = {"status": "ok", "version": "9.9", "fingerprint": "f", "models": {}}
INSTANCE = "this-run"  # what it calls itself in every answer
OLD_SERVER = {"status": "ok", "model": "m", "dimensions": 384, "loaded": True}


@dataclass
class Answering:
    """Where it listens, and what it was asked: method and path, in order.

    `answers` has status and JSON by path; what is not there gets a 404.
    """

    port: int
    answers: Mapping[str, tuple[int, Any]]
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def answering(answers: Mapping[str, tuple[int, Any]]) -> Iterator[Answering]:
    """Run one on a free port of 127.0.0.1."""
    running = Answering(0, answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            running.asked.append(f"{self.command} {self.path}")
            status, content = running.answers.get(self.path, (404, {}))
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Emberd-Instance", INSTANCE)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running.port = server.server_port
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield running
        finally:
            server.shutdown()
