"""The page as a whole: its token, other origins, many models, and a server that goes and comes."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.ports import free_port
from tests.serving import Server
from tests.web.browsing import LOST, WIDTHS, assert_accessible, assert_nothing_is_cut, opened
from tests.web.test_every_view import VIEWS

TOKEN = "of-the-environment-42"  # noqa: S105
TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
MANY = [f"a-model-with-a-rather-long-name-that-is-number-{number}" for number in range(32)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a token."""
    home = tmp_path_factory.mktemp("guarded")
    with Server(home, environ={"EMBERD_TOKEN": TOKEN}) as running:
        yield running


def give(page: Page, token: str) -> None:
    """Type a token into the page's form."""
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Use it").click()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
def test_the_page_asks_for_the_token_and_says_that_one_is_wrong(
    browser: Browser, guarded: Server, width: int
) -> None:
    with opened(browser, guarded, width=width, expects=("401",)) as page:
        expect(page.get_by_role("heading")).to_have_text("This server asks for a token")
        expect(page.get_by_role("alert")).to_have_count(0)
        assert_accessible(page)

        give(page, "not-the-one")
        expect(page.get_by_role("alert")).to_contain_text("does not accept")
        assert_accessible(page)
        assert_nothing_is_cut(page)

        give(page, TOKEN)
        expect(page.get_by_label("Token", exact=True)).to_have_count(0)
        expect(page.locator(".connection")).to_contain_text("emberd")


def test_a_token_opens_every_view_and_is_kept_for_the_tab_alone(
    browser: Browser, guarded: Server
) -> None:
    asked: list[Request] = []
    with opened(browser, guarded, expects=("401",)) as page:
        page.on("request", lambda each: asked.append(each))  # noqa: PLW0108 - it keeps a mark on it
        give(page, TOKEN)
        for view in VIEWS:
            page.goto(f"{guarded.url}/ui/#/{view}")
            page.locator(f"header a[aria-current][href='#/{view}']").wait_for()
            expect(page.locator("main h1")).to_be_visible()
            expect(page.get_by_label("Token", exact=True)).to_have_count(0)
        page.goto(f"{guarded.url}/ui/#/try")
        page.get_by_role("button", name="Compare").click()
        page.get_by_role("table").first.wait_for()
        page.reload()
        expect(page.locator(".connection")).to_contain_text("emberd")
        expect(page.get_by_label("Token", exact=True)).to_have_count(0)
        kept = page.evaluate("[localStorage.length, document.cookie, location.href]")
        with page.context.expect_page() as waiting:
            page.evaluate("window.open(location.href, '_blank', 'noopener')")
        expect(waiting.value.get_by_label("Token", exact=True)).to_be_visible()

    assert kept == [0, "", f"{guarded.url}/ui/#/try"]
    assert len(asked) > 10
    assert not [each.url for each in asked if TOKEN in each.url]
    sent = [each for each in asked if "/ui/" not in each.url]
    assert {each.headers.get("authorization") for each in sent} == {f"Bearer {TOKEN}"}
    assert TOKEN not in guarded.log()


def test_a_token_with_quotation_marks_around_it_is_said(browser: Browser, guarded: Server) -> None:
    with opened(browser, guarded, expects=("401",)) as page:
        give(page, f"“{TOKEN}”")
        expect(page.get_by_role("alert")).to_contain_text("quotation marks")
        give(page, TOKEN)
        expect(page.get_by_label("Token", exact=True)).to_have_count(0)


def test_the_skip_link_stays_in_the_view(browser: Browser, server: Server) -> None:
    with opened(browser, server, "connect") as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")

        expect(page.locator("#main")).to_be_focused()
        expect(page.locator("main h1")).to_have_text("Connect")
        page.goto(f"{server.url}/ui/#/map/100%")
        expect(page.locator("main h1")).to_be_visible()


@contextmanager
def other_site(folder: Path) -> Iterator[str]:
    """Serve a page of somebody else's on a port of its own; yields its origin."""
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title><h1>Elsewhere</h1>")
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_port}"
        finally:
            site.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


FETCHES = """async (url) => {
  const tries = {
    read: () => fetch(url + '/models'),
    events: () => fetch(url + '/events'),
    json: () => fetch(url + '/embed', {method: 'POST', headers: {'content-type':
      'application/json'}, body: '{"texts": ["a"]}'}),
    plain: () => fetch(url + '/unload', {method: 'POST', body: '{}'}),
    blind: () => fetch(url + '/unload', {method: 'POST', body: '{}', mode: 'no-cors'}),
  };
  const found = {};
  for (const [name, request] of Object.entries(tries)) {
    found[name] = await request().then(answer => answer.type, () => 'refused');
  }
  return found;
}"""


def test_a_page_of_another_origin_is_refused(
    browser: Browser, small: Server, tmp_path: Path
) -> None:
    small.embed("a")
    loads = small.row("tiny")["loads"]
    context = browser.new_context()
    with other_site(tmp_path) as origin:
        page = context.new_page()
        page.goto(origin)
        found = page.evaluate(FETCHES, small.url)
        page.evaluate(
            "url => { const frame = document.createElement('iframe'); frame.src = url;"
            " document.body.append(frame); }",
            f"{small.url}/ui/",
        )
        refused = "chrome-error://chromewebdata/"
        for _ in range(300):  # nothing tells that a frame was refused
            page.wait_for_timeout(50)
            framed = [frame.url for frame in page.frames[1:]]
            if framed == [refused]:
                break
        context.close()

    # An opaque answer can be sent for, not read; `/unload` did nothing.
    assert found == {
        "read": "refused", "events": "refused", "json": "refused", "plain": "refused",
        "blind": "opaque",
    }  # fmt: skip
    assert (small.row("tiny")["state"], small.row("tiny")["loads"]) == ("ready", loads)
    assert framed == [refused]
    metrics = small.http.get("/metrics").text
    assert 'status="403"' in metrics


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 32 models of its own."""
    entry = f"{{sources: [{{path: {TINY}}}], dimensions: 64, pooling: mean}}"
    models = "".join(f"  {name}: {entry}\n" for name in MANY)
    home = tmp_path_factory.mktemp("crowded")
    with Server(home, config=f"default: {MANY[0]}\nmodels:\n{models}") as running:
        yield running


@pytest.mark.parametrize(
    "width", [390, pytest.param(1440, marks=pytest.mark.slow)], ids=list(WIDTHS)
)
@pytest.mark.parametrize("view", VIEWS)
def test_with_32_models_every_view_is_whole(
    browser: Browser, crowded: Server, view: str, width: int
) -> None:
    with opened(browser, crowded, view, width=width) as page:
        expect(page.locator(".connection")).to_contain_text("emberd")
        assert_accessible(page)
        assert_nothing_is_cut(page)


def test_with_32_models_each_can_be_chosen(browser: Browser, crowded: Server) -> None:
    with opened(browser, crowded, "try") as page:
        here = page.get_by_label("Model", exact=True).locator("optgroup").first.locator("option")
        expect(here).to_have_count(len(crowded_here(crowded)))
        names = here.all_inner_texts()
        page.get_by_label("Model", exact=True).select_option(MANY[-1])
        page.get_by_role("button", name="Compare").click()
        page.get_by_label(f"By {MANY[-1]}").get_by_role("table").wait_for()

    assert names[0] == MANY[0]  # the default
    assert set(MANY) <= set(names)
    assert crowded.row(MANY[-1])["state"] == "ready"


def crowded_here(server: Server) -> list[str]:
    """Return the models that are on this machine and give vectors."""
    rows = server.http.get("/models").json()["models"]
    return [row["name"] for row in rows if row["pulled"] and row["kind"] == "embed"]


def test_a_server_that_ends_and_comes_back_is_seen(browser: Browser, home: Path) -> None:
    port = str(free_port())
    first = Server(home, arguments=("--port", port))
    try:
        with opened(browser, first, "try", expects=LOST) as page:
            connection = page.locator(".connection")
            expect(connection).to_contain_text("emberd 0")
            page.get_by_label("Texts", exact=True).fill("what was typed\nis still there")

            assert first.stop() == 0
            expect(connection).to_have_text("emberd does not answer; trying again")
            page.get_by_role("button", name="Compare").click()
            expect(page.get_by_role("alert")).to_contain_text("emberd does not answer.")
            assert_accessible(page)

            with Server(home, arguments=("--port", port)):
                expect(connection).to_contain_text("emberd 0", timeout=20_000)
                expect(connection).not_to_contain_text("does not answer")
                page.get_by_role("button", name="Try again").click()
                page.get_by_role("table", name="Cosines of all pairs by minilm").wait_for()
                text = page.get_by_label("Texts", exact=True).input_value()
    finally:
        first.stop()

    assert text == "what was typed\nis still there"
