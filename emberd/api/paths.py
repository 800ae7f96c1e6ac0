"""Requests as the routes expect them: HEAD becomes GET, and surplus slashes are ignored.

This layer around the routes also records which of them answered.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from starlette.types import ASGIApp, Receive, Scope, Send

from emberd.api.record import record_of

SLASHES = re.compile("//+")


def plain(path: str) -> str:
    """Return a path as the routes know it: no double slashes, none at the end.

    Base addresses with a slash too many produce `//embed`, others `/embed/`.
    """
    return SLASHES.sub("/", path).rstrip("/") or "/"


def nearest(path: str, known: Iterable[str]) -> str | None:
    """Return the path that was most likely meant, or None.

    Most often part of the path is in the base address already: `/v1/v1/embeddings`.
    """
    paths = [each for each in known if each != "/"]
    ends = [each for each in paths if path.endswith(each)]
    return max(ends, key=len) if ends else next(iter(get_close_matches(path, paths, n=1)), None)


class Paths:
    """ASGI layer inside the gate. The HTTP server itself drops the body of a HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, in the form the routes know."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inside = {**scope, "method": method}
        try:
            await self._app(inside, receive, send)
        finally:
            if route := inside.get("route"):  # routing leaves it there
                record_of(scope).route = route.path
