"""A small Hub on loopback: enough of its API for huggingface_hub to find and download a model.

`Hub.files` holds the repositories; `Hub.answer_instead` replaces answers, which is how a test
makes a fault; `Hub.requests` is what was asked, in order.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34  # of every repository, under every revision it has
REVISIONS = ("main", "v1", COMMIT)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for one request. A `length` beyond that of `body` breaks the transfer off."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


Fault = Callable[[str, str], Answer | None]
"""Called with method and path; None lets the Hub answer as it would."""


class Hub:
    """A context manager; `url` goes into HF_ENDPOINT of a process that has yet to start."""

    def __init__(self, files: Mapping[str, Mapping[str, bytes]]) -> None:
        self.files = files
        self.requests: list[tuple[str, str]] = []
        self.resumed: list[int] = []  # where downloads that did not begin at 0 began
        self.answer_instead: Fault = lambda _method, _path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def downloaded(self) -> list[str]:
        """Return the names of the files that were fetched, sorted."""
        return sorted(
            path.rpartition(f"/resolve/{COMMIT}/")[2]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        )

    def answer(self, method: str, path: str, start: int = 0) -> Answer:
        """Return what the real Hub would say."""
        self.requests.append((method, path))
        if start:
            self.resumed.append(start)
        instead = self.answer_instead(method, path)
        if instead:
            return instead
        match = re.fullmatch(
            r"/(?:api/models/)?(?P<repository>[^/]+/[^/]+)"
            r"(?:/(?P<what>revision|tree|resolve)/(?P<revision>[^/]+)(?:/(?P<file>.+))?)?",
            unquote(path),
        )
        files = self.files.get(match["repository"]) if match else None
        if not match or files is None:
            return Answer(404, headers={"X-Error-Code": "RepoNotFound"})
        if (match["revision"] or "main") not in REVISIONS:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        if match["what"] == "tree":
            return _as_json(
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in files.items()
            )
        if match["what"] == "resolve":
            return _file(files.get(match["file"]), start)
        siblings = [_sibling(name, content) for name, content in files.items()]
        return _as_json({"id": match["repository"], "sha": COMMIT, "siblings": siblings})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                offset = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(offset[1]) if offset else 0
                answer = hub.answer(self.command, urlsplit(self.path).path, start)
                length = len(answer.body) if answer.length is None else answer.length
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    if self.command == "GET":
                        self.wfile.write(answer.body)
                self.close_connection = length != len(answer.body)

            do_HEAD = do_GET  # noqa: N815 - as the class wants it

            def log_message(self, *_: object) -> None:
                return

        return Handler


def _as_json(content: Any) -> Answer:  # noqa: ANN401 - whatever JSON holds
    text = json.dumps(content if isinstance(content, dict) else list(content))
    return Answer(body=text.encode(), headers={"Content-Type": "application/json"})


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    """Describe a file; the Hub keeps weights by their hash."""
    about: dict[str, Any] = {"rfilename": name, "size": len(content)}
    if name.endswith((".safetensors", ".bin", ".onnx")):
        about["lfs"] = {"sha256": _etag(content), "size": len(content), "pointerSize": 100}
    return about


def _file(content: bytes | None, start: int) -> Answer:
    commit = {"X-Repo-Commit": COMMIT}
    if content is None:
        return Answer(404, headers={"X-Error-Code": "EntryNotFound", **commit})
    headers = {"ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes", **commit}
    if not start:
        return Answer(200, content, headers)
    whole = len(content)
    headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
    return Answer(206, content[start:], headers)


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
