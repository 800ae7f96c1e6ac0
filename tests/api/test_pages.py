"""`/` and `/docs`: answers to the probes of Ollama's clients, and a page that needs no network."""

import base64
import hashlib
import re
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.serving import Server

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
LOADING = {"script", "img", "link", "iframe", "object", "embed", "form", "video", "audio", "source"}
CONFIG = """
models: {tiny: {sources: [{path: /nowhere}], dimensions: 8, pooling: mean,
  aliases: ['<b>"bold"&</b>']}}
"""


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.add(tag)
        found = dict(attrs)
        self.attributes |= set(found)
        self.links += [found["href"] or ""] if "href" in found else []
        self.anchors |= {found["id"] or ""} if "id" in found else set()

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.text += data


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a name that would be HTML."""
    with Server(tmp_path_factory.mktemp("pages"), config=CONFIG) as running:
        yield running


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/plain"])
def test_a_probe_learns_that_ollama_is_running(server: Server, accept: str | None) -> None:
    headers = {} if accept is None else {"accept": accept}

    get, head = server.http.get("/", headers=headers), server.http.head("/", headers=headers)

    assert (get.status_code, get.text) == (200, "Ollama is running")
    assert (head.status_code, head.content) == (200, b"")
    assert get.headers["content-type"] == "text/plain; charset=utf-8"
    assert get.headers["vary"] == "Accept"


def test_urllib_is_such_a_probe(server: Server) -> None:
    with urllib.request.urlopen(server.url) as answer:  # noqa: S310 - the server just started
        assert answer.read() == b"Ollama is running"


def test_who_posts_to_it_still_speaks_teis_dialect(server: Server) -> None:
    assert len(server.http.post("/", json={"inputs": "a"}).json()[0]) == 384


def test_a_browser_is_led_to_the_page(server: Server) -> None:
    answer = server.http.get("/", headers=BROWSER)

    assert (answer.status_code, answer.headers["vary"]) == (307, "Accept")
    assert answer.headers["location"] == "ui/"


def test_docs_load_nothing_and_say_that_they_may_not(own: Server) -> None:
    answer = own.http.get("/docs", headers=BROWSER)
    page = Page(answer.text)

    assert not page.tags & LOADING
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "style" not in page.attributes
    assert all(link.startswith(("/", "#")) for link in page.links)
    assert "http" not in "".join(page.links)
    (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_docs_show_every_route_and_shape(own: Server) -> None:
    described = own.http.get("/openapi.json").json()

    page = Page(own.http.get("/docs").text)

    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page.text
            for status in operation["responses"]:
                assert status in page.text
    for name, shape in described["components"]["schemas"].items():
        for field in shape.get("properties", {}):
            assert name in page.anchors
            assert field in page.text
    assert {link for link in page.links if link.startswith("#")} <= {f"#{a}" for a in page.anchors}


def test_docs_ask_for_a_token_as_all_else_does(home: Path) -> None:
    with Server(home, environ={"EMBERD_TOKEN": "of-the-environment-42"}) as guarded:
        assert guarded.http.get("/docs", headers=BROWSER).status_code == 401
