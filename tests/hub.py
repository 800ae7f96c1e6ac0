"""A small Hub on loopback: enough of its API for huggingface_hub to find and download a model.

`Hub.files` holds the repositories; `Hub.answer_instead` replaces answers, which is how a test
makes a fault; `Hub.requests` is what was asked, in order. `Hub.publish` makes a commit.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34  # the first of every repository, which stays v1
Repositories = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for one request. A `length` beyond that of `body` breaks the transfer off.

    A body of several pieces is sent as they come, and needs a length.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


Fault = Callable[[str, str], Answer | None]
"""Called with method and path; None lets the Hub answer as it would."""


class Hub:
    """A context manager; `variables` are for a process that has yet to start."""

    def __init__(self, files: Repositories) -> None:
        self.files = files
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()  # what the Authorization headers said
        self.resumed: list[int] = []  # where downloads that did not begin at 0 began
        self.answer_instead: Fault = lambda _method, _path: None
        self._commits = {COMMIT: files}
        self._revisions = {"main": COMMIT, "v1": COMMIT}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def variables(self) -> dict[str, str]:
        """What makes it the Hub of a process, in its environment."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def publish(self, commit: str, files: Repositories) -> None:
        """Make `main` another commit with other files."""
        self._commits[commit] = files
        self._revisions["main"] = commit

    def downloaded(self) -> list[str]:
        """Return the names of the files that were fetched, sorted."""
        return sorted(
            path.partition("/resolve/")[2].partition("/")[2]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        )

    def answer(self, method: str, path: str, start: int = 0) -> Answer:
        """Note the request and return what goes back."""
        self.requests.append((method, path))
        if start:
            self.resumed.append(start)
        return self.answer_instead(method, path) or self.true_answer(path, start)

    def true_answer(self, path: str, start: int = 0) -> Answer:
        """Return what the real Hub would say, without noting that it was asked."""
        match = re.fullmatch(
            r"/(?:api/models/)?(?P<repository>[^/]+/[^/]+)"
            r"(?:/(?P<what>revision|tree|resolve)/(?P<revision>[^/]+)(?:/(?P<file>.+))?)?",
            unquote(path),
        )
        if not match or match["repository"] not in self.files:
            return Answer(404, headers={"X-Error-Code": "RepoNotFound"})
        revision = match["revision"] or "main"
        commit = self._revisions.get(revision, revision)
        if commit not in self._commits:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = self._commits[commit][match["repository"]]
        if match["what"] == "tree":
            return _as_json(_entry(name, content) for name, content in files.items())
        if match["what"] == "resolve":
            return _file(match["file"], files, commit, start)
        siblings = [_sibling(name, content) for name, content in files.items()]
        return _as_json({"id": match["repository"], "sha": commit, "siblings": siblings})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                offset = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(offset[1]) if offset else 0
                hub.tokens.add(self.headers.get("Authorization"))
                answer = hub.answer(self.command, urlsplit(self.path).path, start)
                pieces = [answer.body] if isinstance(answer.body, bytes) else answer.body
                whole = len(answer.body) if isinstance(answer.body, bytes) else 0
                length = whole if answer.length is None else answer.length
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    for piece in pieces if self.command == "GET" else ():
                        self.wfile.write(piece)
                self.close_connection = length != whole

            do_HEAD = do_GET  # noqa: N815 - as the class wants it

            def log_message(self, *_: object) -> None:
                return

        return Handler


def _as_json(content: Any) -> Answer:  # noqa: ANN401 - whatever JSON holds
    text = json.dumps(content if isinstance(content, dict) else list(content))
    return Answer(body=text.encode(), headers={"Content-Type": "application/json"})


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".onnx"))


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    """Describe a file; the Hub keeps weights by their hash, and git the rest."""
    about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
    if _is_large(name):
        about["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 100}
    return about


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """Describe a file as a listing of the repository does."""
    about = _sibling(name, content)
    large = {"lfs": {**about["lfs"], "oid": about["lfs"]["sha256"]}} if "lfs" in about else {}
    return {"type": "file", "path": name, "size": len(content), "oid": about["blobId"], **large}


def _file(name: str, files: Mapping[str, bytes], commit: str, start: int) -> Answer:
    about = {"X-Repo-Commit": commit}
    content = files.get(name)
    if content is None:
        return Answer(404, headers={"X-Error-Code": "EntryNotFound", **about})
    digest = sha256(content) if _is_large(name) else git_id(content)
    headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes", **about}
    if not start:
        return Answer(200, content, headers)
    whole = len(content)
    headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
    return Answer(206, content[start:], headers)


def sha256(content: bytes) -> str:
    """Return what the Hub names a large file by."""
    return hashlib.sha256(content).hexdigest()


def git_id(content: bytes) -> str:
    """Return what git, and so the Hub, names a small file by."""
    named = b"blob %d\0%b" % (len(content), content)
    return hashlib.sha1(named, usedforsecurity=False).hexdigest()
