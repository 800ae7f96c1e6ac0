"""HEAD is GET without its body, and a slash at the end of a path means nothing."""

from starlette.types import ASGIApp, Receive, Scope, Send


class Paths:
    """ASGI layer inside of the gate. It is the HTTP server that leaves out the body of a HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on as the routes know it."""
        if scope["type"] == "http":
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)
