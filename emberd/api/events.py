"""`GET /events`: what changes in this server, as Server-Sent Events, for the page and others.

The first event is `hello` with everything, and each later one a change of it. A watcher that reads
too slowly is dropped: it connects again, and gets `hello`. Watching keeps no model loaded.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from emberd.api.openapi import ACCESS, NativeError, fails
from emberd.api.routes import Router

MOST_WAITING = 64  # events that a watcher has not read yet
LOOK_S = 0.25  # between two looks at the models
ALIVE_S = 15.0  # after which a comment is sent, so that a dead connection is noticed

Look = Callable[[], dict[str, Any]]


class Watchers:
    """Everyone who watches. `hello` returns the whole state, `rows` the models' rows."""

    def __init__(self, hello: Look, rows: Callable[[], list[Any]]) -> None:
        self._hello = hello
        self._rows = rows
        self._queues: set[asyncio.Queue[bytes | None]] = set()
        self._seen: dict[str, Any] = {}
        self._looking: asyncio.Task[None] | None = None

    def tell(self, name: str, data: object) -> None:
        """Send an event to everyone; who has not read the last ones is dropped."""
        if not self._queues:
            return
        event = _event(name, data)
        for queue in [*self._queues]:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._drop(queue)

    async def watch(self) -> AsyncIterator[bytes]:
        """Yield events until the server ends, or this watcher is dropped."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)
        self._queues.add(queue)
        if self._looking is None:
            self._seen = {row.name: _lasting(row) for row in self._rows()}
            self._looking = asyncio.create_task(self._look(), name="look at the models")
        try:
            yield _event("hello", self._hello())
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), ALIVE_S)
                except TimeoutError:
                    event = b": still here\n\n"
                if event is None:
                    return
                yield event
        finally:
            self._queues.discard(queue)
            if not self._queues and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    def close(self) -> None:
        """End every stream: the server ends."""
        for queue in [*self._queues]:
            self._drop(queue)

    def _drop(self, queue: "asyncio.Queue[bytes | None]") -> None:
        self._queues.discard(queue)
        with suppress(asyncio.QueueEmpty):
            while True:
                queue.get_nowait()
        queue.put_nowait(None)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            rows = {row.name: row for row in self._rows()}
            lasting = {name: _lasting(row) for name, row in rows.items()}
            changed = [rows[name] for name, seen in lasting.items() if self._seen.get(name) != seen]
            if changed:
                self.tell("models", changed)
            if gone := [name for name in self._seen if name not in rows]:
                self.tell("gone", gone)
            self._seen = lasting


def _lasting(row: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what of a row does not change by the mere passing of time."""
    return {**asdict(row), "idle_s": None, "unloads_in_s": None}


def _event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def create_router(watchers: Watchers) -> Router:
    """Return the route."""
    router = Router()

    @router.get(
        "/events",
        responses={
            200: {
                "description": "Server-Sent Events: `hello`, then `models`, `gone` and others.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **fails(NativeError, ACCESS),
        },
    )
    async def events(request: Request) -> Response:
        """Tell what changes in this server, for as long as the client listens."""
        del request
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(watchers.watch(), 200, headers, "text/event-stream")

    return router
