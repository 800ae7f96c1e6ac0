"""HEAD is GET without its body, and a slash at the end of a path means nothing.

The layer around the routes, so it is also what learns which of them answered.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from emberd.api.record import record_of


class Paths:
    """ASGI layer inside of the gate. It is the HTTP server that leaves out the body of a HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on as the routes know it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inside = {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}
        try:
            await self._app(inside, receive, send)
        finally:
            if route := inside.get("route"):  # routing leaves it there
                record_of(scope).route = route.path
