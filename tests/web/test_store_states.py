"""Stores while something happens: a plan, the question before a migration, and its progress."""

from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Browser, expect

from tests import jobs
from tests.serving import Server
from tests.web.browsing import LOOKS, Scheme, assert_accessible, assert_nothing_is_cut, opened
from tests.web.test_stores import SLOWLY, card, press

ROWS = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with jobs.start(tmp_path_factory.mktemp("states") / "home", ROWS) as running:
        yield running


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_plan_its_question_and_its_progress_are_whole_and_readable(
    browser: Browser, server: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, server, "stores", width=width, scheme=scheme) as page:
        notes, asked = card(page, "notes"), page.get_by_role("dialog")
        notes.get_by_label("Move to").select_option("new")
        press(notes, "Plan")
        expect(notes.get_by_text("What moving it to new takes")).to_be_visible(timeout=SLOWLY)
        assert_accessible(page)
        assert_nothing_is_cut(page)

        press(notes, "Migrate")
        expect(asked).to_be_visible()
        assert_accessible(page)
        assert_nothing_is_cut(page)

        server.embed("a", model="new")
        worker = psutil.Process(server.row("new")["pid"])
        worker.suspend()  # so that the migration does not end while it is looked at
        try:
            press(asked, "Migrate")
            expect(notes.get_by_role("button", name="Stop", exact=True)).to_be_visible()
            assert_accessible(page)
            assert_nothing_is_cut(page)
            press(notes, "Stop")
            expect(notes.get_by_text("It was stopped.")).to_be_visible(timeout=SLOWLY)
        finally:
            worker.resume()
        assert_accessible(page)
        assert_nothing_is_cut(page)
