"""`GET /events`: what changes in this server, as Server-Sent Events, for the page and others.

The first event is `hello` with everything, and each later one a change of it. A watcher that reads
too slowly is dropped: it connects again, and gets `hello`. Watching keeps no model loaded.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emberd.api.hang_up import HangUp, hang_up_of
from emberd.api.openapi import ACCESS, NativeError, fails
from emberd.api.record import record_of
from emberd.api.routes import Router

MOST_UNREAD = 2**20  # bytes that a watcher may lag behind, besides what its connection buffers
END_S = 1.0  # for a watcher to read the end of its stream, when the server ends
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
TYPE = "text/event-stream"


class _Watcher:
    """One who watches."""

    def __init__(self, hang_up: HangUp) -> None:
        self.unread = bytearray()
        self.came = asyncio.Event()
        self.hang_up = hang_up


class Watchers:
    """Everyone who watches. `hello` returns the whole state at the moment when one comes."""

    def __init__(self, hello: Callable[[], dict[str, Any]]) -> None:
        self._hello = hello
        self._all: set[_Watcher] = set()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._all)

    def tell(self, name: str, data: object) -> None:
        """Send an event to everyone; who has not read the last ones is dropped."""
        if not self._all:
            return
        event = _event(name, data)
        for watcher in [*self._all]:
            if len(watcher.unread) + len(event) > MOST_UNREAD:
                self._drop(watcher)
            else:
                watcher.unread += event
                watcher.came.set()

    async def send_to(self, send: Send, hang_up: HangUp) -> None:
        """Send events until the server ends, or this watcher is dropped."""
        watcher = _Watcher(hang_up)
        unread = _event("hello", self._hello())
        self._all.add(watcher)
        if self._is_over:
            self._end(watcher)
        try:
            while unread:
                await send({"type": "http.response.body", "body": unread, "more_body": True})
                if not self._is_over:
                    await watcher.came.wait()
                watcher.came.clear()
                unread, watcher.unread = bytes(watcher.unread), bytearray()
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._all.discard(watcher)

    def close(self) -> None:
        """End every stream: the server ends."""
        self._is_over = True
        for watcher in self._all:
            self._end(watcher)

    def _end(self, watcher: _Watcher) -> None:
        """Have a stream end, and hang up on one who does not read that: nobody waits for them."""
        watcher.came.set()
        asyncio.get_running_loop().call_later(END_S, watcher.hang_up.cut)

    def _drop(self, watcher: _Watcher) -> None:
        """Hang up on one who does not read."""
        self._all.discard(watcher)
        watcher.hang_up.cut()


class Stream(Response):
    """An answer that lasts as long as its client listens."""

    def __init__(self, watchers: Watchers) -> None:
        super().__init__(headers=HEADERS, media_type=TYPE)
        del self.headers["content-length"]
        self._watchers = watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises ClientDisconnect when the client has hung up."""
        del receive
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        hang_up = hang_up_of(scope)
        await hang_up.ends(self._watchers.send_to(send, hang_up))


def _event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def create_router(watchers: Watchers) -> Router:
    """Return the route."""
    router = Router()

    @router.get(
        "/events",
        response_class=Response,
        responses={
            200: {
                "description": "Server-Sent Events: `hello`, then `models`, `gone` and others.",
                "content": {TYPE: {"schema": {"type": "string"}}},
            },
            **fails(NativeError, ACCESS),
        },
    )
    async def events(request: Request) -> Response:
        """Tell what changes in this server, for as long as the client listens."""
        record_of(request.scope).lasts = True
        return Stream(watchers)

    return router
