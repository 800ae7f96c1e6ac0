"""From method and path to the function that answers.

FastAPI only describes the routes, in /openapi.json. Its routing, dependencies and response classes
took longer than everything else that the server does for a request.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from emberd.api.errors import no_route, wrong_method
from emberd.api.record import record_of


class Routes:
    """ASGI app inside the gate: a function for each route.

    It gets the request, if it takes one, and the names in its path. HEAD is answered as GET; the
    HTTP server itself drops the body.
    """

    def __init__(self, routes: Iterable[APIRoute], lifespan: ASGIApp) -> None:
        self._lifespan = lifespan
        self._at: dict[str, dict[str, APIRoute]] = {}  # by path, then by method
        for route in routes:
            self._at.setdefault(route.path, {}).update(dict.fromkeys(route.methods or (), route))
        named = (next(iter(methods.values())) for methods in self._at.values())
        self._named = [route for route in named if route.param_convertors]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises what the route raises."""
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        scope = request.scope
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        methods, names = self._find(scope["path"])
        if not methods:
            return no_route(scope, self._at)
        route = methods.get(method)
        record_of(scope).route = (route or next(iter(methods.values()))).path
        if not route:
            return wrong_method(scope, method, methods)
        endpoint = route.endpoint
        if "request" in endpoint.__annotations__:
            names = {**names, "request": request}
        response: Response = await endpoint(**names)
        return response

    def _find(self, path: str) -> tuple[Mapping[str, APIRoute], dict[str, Any]]:
        """Return the routes at a path by method, and the names in it."""
        if methods := self._at.get(path):
            return methods, {}
        for route in self._named:
            if match := route.path_regex.match(path):
                return self._at[route.path], match.groupdict()
        return {}, {}
