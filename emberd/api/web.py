"""The page at `/ui/`: files of `emberd/web/`, under a policy that lets a browser load nothing else.

Everything on it comes from the same routes that other clients use. The files hold no data, so they
need no token: the page asks for one.
"""

import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from emberd import files
from emberd.api.errors import no_route
from emberd.api.openapi import TEIError, fails, shows
from emberd.api.routes import Router

PROBED = "Ollama is running"  # Ollama's exact words: its clients probe for them
FOLDER = Path(__file__).parents[1] / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-cache",  # an upgrade of emberd shows at once; the ETag saves the transfer
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_front(*, has_page: bool) -> Router:
    """Return `/`, which leads browsers to the page if there is one."""
    router = Router()

    @router.get(
        "/",
        response_class=HTMLResponse,
        responses=shows("text/html", "text/plain") | fails(TEIError, (403,)),
    )
    async def front(request: Request) -> Response:
        """Lead clients that accept HTML to the page; answer others as Ollama does."""
        response: Response = PlainTextResponse(PROBED)
        if has_page and "text/html" in request.headers.get("accept", ""):
            response = RedirectResponse("ui/", 307)
        response.headers["Vary"] = "Accept"
        return response

    return router


def create_router() -> Router:
    """Return the routes of the page's files."""
    router = Router()

    @router.get("/ui", include_in_schema=False)
    async def index(request: Request) -> Response:
        """Return the page; its addresses are relative to a path that ends with a slash."""
        if not request.scope.get("raw_path", b"").partition(b"?")[0].endswith(b"/"):
            return RedirectResponse("ui/", 307)
        return _file(request, "index.html")

    @router.get("/ui/{name:path}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        """Return one of the page's files."""
        return _file(request, name)

    return router


def _file(request: Request, name: str) -> Response:
    found = _files().get(name)
    if not found:
        return no_route(request.scope, ["/ui"])
    path, tag = found
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(files.read(path), media_type=TYPES[path.suffix], headers=headers)


@cache
def _files() -> dict[str, tuple[Path, str]]:
    """Return the page's files and their ETags, by name below `/ui/`."""
    found = [path for path in FOLDER.rglob("*") if path.suffix in TYPES]
    return {
        path.relative_to(FOLDER).as_posix(): (
            path,
            f'"{hashlib.sha256(files.read(path)).hexdigest()[:16]}"',
        )
        for path in found
    }
