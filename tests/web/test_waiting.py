"""Waiting: whatever takes more than 2 s says why and what to do, and goes on by itself."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests import jobs
from tests.faults.troubled import starts_held
from tests.ports import free_port
from tests.serving import Server, stopped
from tests.web.browsing import LOST, WIDTHS, assert_accessible, assert_nothing_is_cut, opened
from tests.web.holding import hold_silence, notice_silence
from tests.web.test_every_view import VIEWS

CONFIG = "stores: {notes: {path: notes, kind: cmem}}\n"
SHOWN = {"trust": "No model has been used here yet", "stores": "There is nothing at",
         "map": "There is no store at"}  # fmt: skip
BUSY = re.compile("has not answered this yet.*emberd doctor")
GONE = re.compile("emberd does not answer.*Start it with emberd serve")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with jobs.start(tmp_path_factory.mktemp("waiting") / "home", 40) as running:
        yield running


def hold(page: Page, *patterns: str) -> None:
    """Let no request for these out, until `unroute` does."""
    for pattern in patterns:
        page.route(pattern, lambda _: None)


def go(page: Page, view: str) -> None:
    """Go to a view as one does with the mouse."""
    page.locator(f"header nav a[href='#/{view}']").click()


def wait_of(page: Page, text: str) -> Locator:
    """Return what says that something is under way."""
    return page.locator(".wait").filter(has_text=text)


@pytest.mark.parametrize(
    ("view", "what", "width"),
    [
        ("trust", "Asking the server what it knows of the models", WIDTHS["desk"]),
        ("stores", "Asking the server which stores there are", WIDTHS["phone"]),
        ("map", "Asking for the map of notes", WIDTHS["phone"]),
    ],
    ids=["trust", "stores", "map"],
)
def test_a_server_that_hangs_is_told_and_its_answer_still_shown(
    browser: Browser, server: Server, view: str, what: str, width: int
) -> None:
    with opened(browser, server, width=width) as page:
        hold_silence(page)
        expect(page.locator(".connection")).to_contain_text("emberd 0")
        go(page, view)
        expect(page.locator("main h1")).to_have_text(view.title())
        expect(page.locator(".wait")).to_have_count(0, timeout=60_000)
        go(page, "now")
        with stopped(psutil.Process(server.process.pid)):
            go(page, view)
            expect(wait_of(page, what)).to_contain_text(BUSY)

            notice_silence(page)
            expect(page.locator(".gone")).to_contain_text(GONE)
            expect(wait_of(page, what)).to_contain_text("goes on by itself")
            assert_accessible(page)
            assert_nothing_is_cut(page)
        expect(page.locator(".wait")).to_have_count(0, timeout=60_000)
        expect(page.locator(".gone")).to_have_count(0)
        expect(page.locator("main .card").first).to_be_visible()


def test_before_the_first_answer_it_says_that_there_is_none(
    browser: Browser, server: Server
) -> None:
    with opened(browser, server) as page:
        hold(page, "**/events")
        hold_silence(page)

        expect(page.locator(".wait")).to_contain_text("There is no answer yet")
        notice_silence(page)
        expect(page.locator(".gone")).to_contain_text(GONE)
        assert_accessible(page)

        page.unroute_all()
        expect(page.locator(".gone")).to_have_count(0)
        expect(page.locator(".connection")).to_contain_text("emberd 0")
        expect(page.get_by_text("There is no answer yet")).to_have_count(0)


def test_a_server_that_was_killed_is_told_in_every_view_until_it_is_back(
    browser: Browser, home: Path
) -> None:
    port = str(free_port())
    first = Server(home, config=CONFIG, arguments=("--port", port))
    with opened(browser, first, expects=(*LOST, "status of 404")) as page:  # the store is not there
        hold(page, "**/events")  # so it has told nothing yet
        page.reload()
        for view in VIEWS:
            go(page, view)
            expect(page.locator("main h1")).to_have_text(view.title())
        first.process.kill()
        first.process.wait(30)
        page.unroute("**/events")

        for view in VIEWS:
            go(page, view)
            expect(page.locator("main h1")).to_have_text(view.title())
            expect(page.locator(".gone")).to_contain_text(GONE)
            if view not in ("trust", "stores"):  # these say that their own question failed
                expect(page.locator(".wait")).to_contain_text("goes on by itself")
        go(page, "map")
        with Server(home, arguments=("--port", port)):
            expect(page.locator(".gone")).to_have_count(0)
            for view in ("map", *VIEWS):
                go(page, view)
                expect(page.locator("main h1")).to_have_text(view.title())
                expect(page.locator(".wait")).to_have_count(0)
            expect(page.locator(".clients")).to_be_visible()
    first.stop()


@pytest.mark.parametrize("view", ["trust", "stores", "map"])
def test_what_failed_while_the_server_was_gone_is_asked_again(
    browser: Browser, home: Path, view: str
) -> None:
    port = str(free_port())
    first = Server(home, config=CONFIG, arguments=("--port", port))
    with opened(browser, first, view, expects=(*LOST, "status of 404")) as page:
        expect(page.locator(".connection")).to_contain_text("emberd 0")
        expect(page.get_by_text(SHOWN[view])).to_be_visible()
        go(page, "now")
        first.process.kill()
        first.process.wait(30)
        go(page, view)
        expect(page.get_by_role("alert")).to_contain_text("emberd does not answer")

        with Server(home, arguments=("--port", port)):
            expect(page.get_by_text(SHOWN[view])).to_be_visible()
            expect(page.get_by_text("emberd does not answer")).to_have_count(0)
    first.stop()


def test_a_view_that_loads_slowly_says_so(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        hold(page, "**/views/connect.js")
        page.reload()
        go(page, "connect")
        expect(wait_of(page, "Loading the view")).to_contain_text(
            "sends the files of the page slowly"
        )
        assert_accessible(page)

        page.unroute_all()
        expect(page.locator("main h1")).to_have_text("Connect")


def test_a_view_that_could_not_be_loaded_comes_once_the_server_answers(
    browser: Browser, server: Server
) -> None:
    with opened(browser, server, expects=("ERR_FAILED",)) as page:
        page.route("**/views/connect.js", lambda route: route.abort())
        page.reload()
        go(page, "connect")
        expect(page.get_by_role("alert")).to_contain_text("This view could not be loaded")
        with stopped(psutil.Process(server.process.pid)):
            expect(page.locator(".gone")).to_be_visible()
            page.unroute("**/views/connect.js")

        expect(page.locator(".clients")).to_be_visible()


def test_a_command_that_starts_slowly_says_why(browser: Browser, server: Server) -> None:
    with opened(browser, server, "stores") as page:
        letters = page.get_by_role("region", name="letters", exact=True)
        hold(page, "**/jobs")
        letters.get_by_role("button", name="Check").click()
        expect(wait_of(page, "Asking for the command to start")).to_contain_text(BUSY)
        with starts_held(server):
            page.unroute_all()
            expect(wait_of(page, "Starting the command")).to_contain_text("Stop ends it")
            assert_accessible(page)

        expect(letters.get_by_text("What the check found")).to_be_visible(timeout=60_000)
        expect(page.locator(".wait")).to_have_count(0)


def test_a_map_that_is_read_slowly_says_why(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        with starts_held(server):
            page.evaluate("location.hash = '#/map/mixed'")
            expect(page.locator(".wait")).to_contain_text("that takes long on a busy machine")
            assert_accessible(page)
        expect(page.locator(".picture canvas")).to_be_visible(timeout=60_000)


def test_a_model_that_computes_for_long_says_why_and_can_be_stopped(
    browser: Browser, server: Server
) -> None:
    server.embed("a", model="old")
    with opened(browser, server, "try") as page, stopped(psutil.Process(server.row("old")["pid"])):
        page.get_by_label("Model", exact=True).select_option("old")
        page.get_by_role("button", name="Compare").click()
        expect(wait_of(page, "old computes")).to_contain_text("Stop ends the question")

        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".wait")).to_have_count(0)


def test_what_a_button_asks_for_is_told_until_it_is_answered(
    browser: Browser, server: Server
) -> None:
    server.embed("a", model="old")
    with opened(browser, server) as page:
        model = page.get_by_role("article", name="old", exact=True)
        hold(page, "**/unload")
        model.get_by_role("button", name="Unload").click()
        expect(model.locator(".wait")).to_contain_text("answers the requests that it has first")
        page.unroute_all()
        expect(model).to_have_count(0)
