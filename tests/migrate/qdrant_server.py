"""A stand-in for Qdrant's server, which cannot be installed here: its REST routes over local mode.

    python -m tests.migrate.qdrant_server

Requests are read, and answers written, by the models of qdrant-client itself; what they do is done
by its local mode in memory, one request at a time. It prints its port. It shows that the client is
used as its types say; what only a real server does (replicas, indexes in the making, limits), it
does not show.
"""

import json
import re
import sys
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

KEY = "secret"  # the api_key that every request has to have
Handle = Callable[..., Any]


class Server:
    """The routes, by method and path."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self._lock = threading.Lock()
        name = r"/collections/([^/]+)"
        self._routes: list[tuple[str, str, Handle]] = [
            ("GET", r"/collections", lambda _: self._client.get_collections()),
            ("GET", r"/aliases", lambda _: self._client.get_aliases()),
            ("POST", r"/collections/aliases", self._aliases),
            ("GET", name, lambda _, one: self._client.get_collection(one)),
            ("PUT", name, self._create),
            ("DELETE", name, lambda _, one: self._client.delete_collection(one)),
            ("PATCH", name, self._update),
            ("PUT", f"{name}/index", self._index),
            ("PUT", f"{name}/points", self._upsert),
            ("POST", f"{name}/points", self._retrieve),
            ("POST", f"{name}/points/count", self._count),
            ("POST", f"{name}/points/scroll", self._scroll),
            ("POST", f"{name}/points/delete", self._delete),
            ("POST", f"{name}/points/query", self._query),
        ]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:  # noqa: ANN401
        """Return status and answer of one request."""
        if (method, path) == ("GET", "/"):
            return 200, {"title": "qdrant - vector search engine", "version": "0-stand-in"}
        for verb, pattern, handle in self._routes:
            matched = re.fullmatch(pattern, path)
            if verb == method and matched:
                with self._lock:
                    try:
                        result = handle(body, *matched.groups())
                    except ValueError as error:
                        missing = "not found" in str(error)
                        return 404 if missing else 400, {"status": {"error": str(error)}, "time": 0}
                return 200, {"result": _plain(result), "status": "ok", "time": 0}
        return 404, {"status": {"error": f"the stand-in has no {method} {path}"}, "time": 0}

    def _aliases(self, body: Any) -> bool:  # noqa: ANN401
        actions = models.ChangeAliasesOperation.model_validate(body).actions
        return self._client.update_collection_aliases(actions)

    def _create(self, body: Any, name: str) -> bool:  # noqa: ANN401
        asked = models.CreateCollection.model_validate(body)
        given = {key: getattr(asked, key) for key in models.CreateCollection.model_fields}
        given["vectors_config"] = given.pop("vectors")
        given["sparse_vectors_config"] = given.pop("sparse_vectors")
        return self._client.create_collection(
            name, **{key: each for key, each in given.items() if each is not None}
        )

    def _update(self, body: Any, name: str) -> bool:  # noqa: ANN401
        asked = models.UpdateCollection.model_validate(body)
        return self._client.update_collection(name, metadata=asked.metadata)

    def _index(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.CreateFieldIndex.model_validate(body)
        return self._client.create_payload_index(name, asked.field_name, asked.field_schema)

    def _upsert(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.PointsList.model_validate(body)
        return self._client.upsert(name, asked.points)

    def _retrieve(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.PointRequest.model_validate(body)
        vectors = asked.with_vector or False
        return self._client.retrieve(name, asked.ids, with_payload=True, with_vectors=vectors)

    def _count(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.CountRequest.model_validate(body)
        return self._client.count(name, asked.filter, exact=True)

    def _scroll(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.ScrollRequest.model_validate(body)
        points, after = self._client.scroll(
            name,
            scroll_filter=asked.filter,
            limit=asked.limit or 10,
            offset=asked.offset,
            with_payload=True if asked.with_payload is None else asked.with_payload,
            with_vectors=asked.with_vector or False,
        )
        return {"points": _plain(points), "next_page_offset": after}

    def _delete(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.PointIdsList.model_validate(body)
        return self._client.delete(name, asked.points)

    def _query(self, body: Any, name: str) -> Any:  # noqa: ANN401
        asked = models.QueryRequest.model_validate(body)
        query = asked.query.nearest if isinstance(asked.query, models.NearestQuery) else asked.query
        return self._client.query_points(
            name, query=query, using=asked.using, limit=asked.limit or 10, with_payload=False
        )


def _plain(result: Any) -> Any:  # noqa: ANN401
    """Return an answer as JSON."""
    return TypeAdapter(Any).dump_python(result, mode="json")


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            if self.path != "/" and self.headers.get("api-key") != KEY:
                status, found = 401, {"status": {"error": "Must provide an API key"}, "time": 0}
            else:
                status, found = server.answer(self.command, self.path.partition("?")[0], body)
            raw = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


class Listening(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as there
        """Say what else failed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    """Serve on a free port of the loopback interface until the process is ended."""
    warnings.simplefilter("ignore")  # local mode says what it does not do
    serving = Listening(("127.0.0.1", 0), _handler(Server()))
    print(serving.server_address[1], flush=True)  # noqa: T201 - this is how its port is known
    serving.serve_forever()


if __name__ == "__main__":
    main()
