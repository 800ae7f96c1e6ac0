"""From method and path to the function that answers.

The routes are ours: FastAPI's routing, dependencies and response classes took longer than all else
that the server does for a request. It only describes them, once somebody asks; see `openapi`.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emberd.api.errors import no_route, wrong_method
from emberd.api.record import record_of

NAME = re.compile(r"\{(\w+):path\}")

Endpoint = Callable[..., Awaitable[Response]]
E = TypeVar("E", bound=Endpoint)


@dataclass(frozen=True, slots=True)
class Route:
    """A path and its methods; `described` is what FastAPI's `add_api_route` is told besides."""

    path: str
    methods: tuple[str, ...]
    endpoint: Endpoint
    described: Mapping[str, Any]


class Router:
    """Collects routes. What is `described` holds for all of them."""

    def __init__(self, **described: object) -> None:
        self.routes: list[Route] = []
        self._described = described

    def get(self, path: str, **described: object) -> Callable[[E], E]:
        """Return a decorator that makes a function answer GET."""
        return self._add("GET", path, described)

    def post(self, path: str, **described: object) -> Callable[[E], E]:
        """Return a decorator that makes a function answer POST."""
        return self._add("POST", path, described)

    def _add(self, method: str, path: str, described: dict[str, object]) -> Callable[[E], E]:
        def add(endpoint: E) -> E:
            self.routes.append(Route(path, (method,), endpoint, self._described | described))
            return endpoint

        return add


class Routes:
    """ASGI app inside the gate: a function for each route.

    It gets the request, if it takes one, and the name in its path. HEAD is answered as GET; the
    HTTP server itself drops the body. `lifespan` is entered when the server starts, and left when
    it ends. `others` loads further routes, when a path is asked for that is none of these.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        others: Callable[[], Iterable[Route]] | None = None,
    ) -> None:
        self._lifespan = lifespan
        self._others = others
        self._at: dict[str, dict[str, Route]] = {}  # by path, then by method
        self._add(routes)

    def _add(self, routes: Iterable[Route]) -> None:
        for route in routes:
            self._at.setdefault(route.path, {}).update(dict.fromkeys(route.methods, route))
        self._named = {
            re.compile(NAME.sub(r"(?P<\1>.+)", path)): methods
            for path, methods in self._at.items()
            if NAME.search(path)
        }
        self._fixed = {path: of for path, of in self._at.items() if not NAME.search(path)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises what the route raises."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

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
        if "request" in route.endpoint.__annotations__:
            names = {**names, "request": request}
        return await route.endpoint(**names)

    def _find(self, path: str) -> tuple[Mapping[str, Route], dict[str, Any]]:
        """Return the routes at a path by method, and the name in it."""
        if methods := self._fixed.get(path):
            return methods, {}
        for pattern, methods in self._named.items():
            if match := pattern.fullmatch(path):
                return methods, match.groupdict()
        if not self._others:
            return {}, {}
        self._add(self._others())
        self._others = None
        return self._find(path)
