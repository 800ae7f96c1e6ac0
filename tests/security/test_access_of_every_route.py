"""No route is forgotten: who may not ask is refused on each that the app has."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from emberd.api.access import FREE, PAGE, BearerTokens
from emberd.api.app import create_app
from emberd.config.live import LiveConfig
from emberd.config.load import load_config
from emberd.running import Running
from tests.api.guarded import ORIGIN, OWN, bearer, by_socket, start
from tests.serving import Server

HERE = Running(1, "127.0.0.1", 8767, "1")


def routes() -> list[tuple[str, str]]:
    """Return method and path of every route of the app, and of some that are none."""
    config = load_config(environ={"EMBERD_HOME": "/nowhere"})
    app = create_app(LiveConfig(config, lambda: config), BearerTokens(None, None), HERE)
    found = [
        (method, route.path.replace("{model:path}", "minilm"))
        for route in app.routes()
        for method in sorted(route.methods)
    ]
    return [*found, ("GET", "/nowhere"), ("PUT", "/embed"), ("OPTIONS", "/embed")]


ROUTES = routes()
EACH = pytest.mark.parametrize(("method", "path"), ROUTES)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("g")) as server:
        yield server


@pytest.fixture(scope="module")
def at_socket(guarded: Server) -> Iterator[httpx2.Client]:
    """A client of its Unix socket."""
    with by_socket(guarded) as http:
        yield http


def test_there_are_routes() -> None:
    paths = {path for _, path in ROUTES}

    assert len(ROUTES) > 20
    assert {"/embed", "/v1/embeddings", "/api/embed", "/", "/metrics", "/openapi.json"} <= paths


@EACH
def test_another_host_is_refused(guarded: Server, method: str, path: str) -> None:
    headers = {"host": "evil.example", **bearer(OWN)}

    assert guarded.http.request(method, path, headers=headers).status_code == 403


@EACH
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_another_page_is_refused(guarded: Server, method: str, path: str, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST", **bearer(OWN)}
    response = guarded.http.request(method, path, headers=asks)

    assert response.status_code == 403
    assert not {name for name in response.headers if name.startswith("access-control")}


@EACH
def test_without_a_token_nothing_is_said(
    guarded: Server, at_socket: httpx2.Client, method: str, path: str
) -> None:
    expected: tuple[int, ...] = (200,) if path in FREE else (401,)
    if method == "GET" and path in (*PAGE, "/ui/{name:path}"):  # its files have no data
        expected = (200, 307, 404)
    for http in (guarded.http, at_socket):
        for headers in ({}, bearer("guess"), {"origin": ORIGIN}):
            if http is at_socket and headers.get("origin"):
                continue
            response = http.request(method, path, headers=headers)
            assert response.status_code in expected, headers


def test_a_get_changes_nothing(guarded: Server) -> None:
    """A page can make a browser send one without an Origin."""

    def state() -> object:
        rows = guarded.http.get("/models", headers=bearer(OWN)).json()["models"]
        files = {file: file.stat().st_mtime_ns for file in guarded.home.rglob("*.[jy]*")}
        return [(row["name"], row["state"], row["loads"]) for row in rows], files

    before = state()
    for method, path in ROUTES:
        if method in ("GET", "HEAD"):
            with guarded.http.stream(method, path, headers=bearer(OWN)) as response:
                assert response.status_code < 500  # and not more: /events never ends

    assert state() == before


def test_tokens_are_compared_in_constant_time() -> None:
    """By `compare_digest` alone, each of them whatever the others gave."""
    code = ast.parse(textwrap.dedent(inspect.getsource(BearerTokens.accepts)))

    assert not [node for node in ast.walk(code) if isinstance(node, ast.Compare | ast.BoolOp)]
    assert not [node for node in ast.walk(code) if isinstance(node, ast.GeneratorExp)]
    assert "compare_digest" in ast.dump(code)


def test_no_other_code_sees_a_token() -> None:
    """Nobody else compares what comes in with a token."""
    emberd = Path(inspect.getfile(BearerTokens)).parents[1]
    named = [
        str(file.relative_to(emberd))
        for file in emberd.rglob("*.py")
        if "authorization" in file.read_text() and file.parent.name == "api"
    ]

    assert named == ["api/access.py"]
