"""The page's files: what a browser is told of them, who may ask for them, how small they are."""

import gzip
import re
from pathlib import Path

import pytest

import emberd
from tests.serving import Server

FOLDER = Path(emberd.__file__).parent / "web"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
MOST_BYTES = 300_000  # compressed
MODULE = re.compile(r"""(?:from|import\()\s*["'](\.[^"']+)["']""")


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is_and_that_nothing_foreign_may_be_loaded(
    server: Server, name: str
) -> None:
    answer = server.http.get(f"/ui/{name}")

    assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes())
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    tag = answer.headers["etag"]
    again = server.http.get(f"/ui/{name}", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_a_module_finds_what_it_imports(name: str) -> None:
    text = (FOLDER / name).read_text()

    for imported in MODULE.findall(text):
        assert ((FOLDER / name).parent / imported).is_file(), imported
    assert "eval(" not in text
    assert "new Function" not in text


def test_the_page_names_no_other_server() -> None:
    own = [name for name in FILES if not name.startswith("lib/") and not name.endswith(".svg")]
    for name in own:
        found = re.findall(r"https?://[a-z0-9.-]*", (FOLDER / name).read_text())
        assert set(found) <= {"http://127.0.0.1", "http://"}, name


def test_the_page_is_small() -> None:
    assert sum(len(gzip.compress((FOLDER / name).read_bytes())) for name in FILES) <= MOST_BYTES


def test_the_address_ends_with_a_slash(server: Server) -> None:
    answer = server.http.get("/ui")

    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")
    assert server.http.get("/ui/").text == (FOLDER / "index.html").read_text()


@pytest.mark.parametrize("path", ["/ui/none.js", "/ui/../api/web.py", "/ui/%2e%2e/api/web.py"])
def test_nothing_else_is_served(server: Server, path: str) -> None:
    assert server.http.get(path).status_code == 404


def test_the_page_needs_no_token_and_everything_on_it_does(home: Path) -> None:
    with Server(home, environ={"EMBERD_TOKEN": "of-the-environment-42"}) as guarded:
        assert guarded.http.get("/ui/").status_code == 200
        assert guarded.http.get("/ui/app.js").status_code == 200
        assert guarded.http.get("/").status_code == 200
        assert guarded.http.get("/models").status_code == 401
        assert guarded.http.post("/", json={"inputs": "a"}).status_code == 401


def test_without_the_page_nothing_that_is_made_for_it_is_there(home: Path) -> None:
    with Server(home, config="server: {page: false}") as bare:
        for path in ("/ui/", "/ui/app.js", "/events", "/jobs", "/stores", "/trust", "/map/points"):
            answer = bare.http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route"), path
        assert bare.http.post("/jobs", json={"kind": "verify"}).status_code == 404
        front = bare.http.get("/", headers={"accept": "text/html"})
        assert (front.status_code, front.text) == (200, "Ollama is running")
        assert not {"/events", "/jobs"} & set(bare.http.get("/openapi.json").json()["paths"])
        assert bare.embed("a")["dimensions"] == 384


def test_the_servers_own_page_may_use_it_and_no_other_may(server: Server) -> None:
    own = {"origin": server.url}

    assert server.http.post("/embed", json={"texts": ["a"]}, headers=own).status_code == 200
    for origin in (
        "http://127.0.0.1", "http://127.0.0.1:1", server.url.replace("127.0.0.1", "localhost"),
        server.url.replace("127.0.0.1", "evil.example"), f"{server.url}.evil.example", "null",
    ):  # fmt: skip
        refused = server.http.post("/embed", json={"texts": ["a"]}, headers={"origin": origin})
        assert refused.status_code == 403, origin


def test_a_name_that_a_network_can_lead_here_is_no_page_of_ours(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for name, status in (("localhost", 200), ("a.localhost", 200), ("evil.internal", 403)):
        own = {"host": f"{name}:{port}", "origin": f"http://{name}:{port}"}
        assert server.http.get("/models", headers=own).status_code == status, name


def test_a_name_that_is_rebound_is_no_page_of_ours(server: Server) -> None:
    rebound = {"host": "evil.example", "origin": "http://evil.example"}

    assert server.http.get("/models", headers=rebound).status_code == 403
    assert server.http.get("/ui/", headers=rebound).status_code == 403
