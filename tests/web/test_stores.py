"""The view Stores: whose vectors a real store holds, moving it with progress and stop, and back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests import jobs
from tests.faults.troubled import halted, starts_held
from tests.migrate import stores
from tests.serving import Server
from tests.web.browsing import (
    SCHEMES,
    WIDTHS,
    Scheme,
    assert_accessible,
    assert_nothing_is_cut,
    opened,
)

ROWS = 6000
SLOWLY = 90_000  # milliseconds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with jobs.start(tmp_path_factory.mktemp("stores") / "home", ROWS) as running:
        yield running


def card(page: Page, name: str) -> Locator:
    """Return the block of a store."""
    return page.get_by_role("region", name=name, exact=True)


def press(within: Locator, name: str) -> None:
    within.get_by_role("button", name=name, exact=True).click()


def rows_of(server: Server, kind: str) -> list[dict[str, Any]]:
    return [row for row in server.http.get("/jobs").json()["jobs"] if row["kind"] == kind]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_check_shows_the_rows_by_model(
    browser: Browser, server: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, server, "stores", width=width, scheme=scheme) as page:
        mixed = card(page, "mixed")
        with starts_held(server):
            press(mixed, "Check")
            expect(mixed.get_by_role("button", name="Check")).to_be_disabled()
        expect(mixed.get_by_role("button", name="Check")).to_be_enabled(timeout=SLOWLY)

        expect(mixed.get_by_text("Its vectors were made by several models.")).to_be_visible()
        made_by = mixed.locator("tbody tr")
        expect(made_by.nth(0).get_by_role("cell")).to_have_text(["old", "25", "62.5 %", ""])
        expect(made_by.nth(1).get_by_role("cell")).to_have_text(["new", "15", "37.5 %", ""])
        expect(mixed.get_by_text("40 of 40 rows")).to_be_visible()
        expect(mixed.locator("h2 + .state")).to_have_text("several models")
        assert_accessible(page)
        assert_nothing_is_cut(page)
    warned = [row["message"] for row in server.http.get("/health").json()["warnings"]]
    assert any("The store mixed holds vectors of more than one model" in each for each in warned)


def test_a_button_stays_off_until_the_job_is_shown_however_late_the_stream_is(
    browser: Browser, server: Server
) -> None:
    """Here it never says anything of the job, because that is not there."""
    job = {
        "id": "late", "kind": "check", "subject": "letters", "state": "running", "began_s": 2e9,
        "ended_s": None, "progress": None, "result": None, "error": None,
    }  # fmt: skip
    with opened(browser, server, "stores") as page:
        page.route("**/jobs", lambda route: route.fulfill(json=job))
        letters = card(page, "letters")
        press(letters, "Check")

        expect(letters.get_by_text("Starting the command")).to_be_visible()
        expect(letters.get_by_role("button", name="Check")).to_be_disabled()


def test_a_store_is_planned_moved_stopped_continued_and_restored(
    browser: Browser, server: Server
) -> None:
    before = stores.read(server.home / "notes.db", "vec_notes")[1]
    with opened(browser, server, "stores") as page:
        notes, asked = card(page, "notes"), page.get_by_role("dialog")
        notes.get_by_label("Move to").select_option("new")
        press(notes, "Plan")
        expect(notes.get_by_text("What moving it to new takes")).to_be_visible(timeout=SLOWLY)
        expect(notes).to_contain_text(re.compile(rf"Rows{ROWS:,}.*Time.*Disk.*for the backup"))
        assert_accessible(page)

        press(notes, "Migrate")
        expect(asked).to_contain_text("emberd migrate run notes --to new --yes")
        assert_accessible(page)
        press(asked, "Cancel")
        expect(asked).to_have_count(0)
        assert rows_of(server, "migrate") == []

        server.http.post("/unload", json={"model": "new"})
        with halted(server, after_rows=ROWS // 2):
            press(notes, "Migrate")
            press(asked, "Migrate")
            moved = re.compile(rf"[1-9][\d,]* of {ROWS:,} rows")
            expect(notes.get_by_text(moved)).to_be_visible(timeout=SLOWLY)
            notes.get_by_role("button", name="Stop", exact=True).click()
            expect(notes.get_by_text("It was stopped.")).to_be_visible(timeout=SLOWLY)
        expect(notes).to_contain_text("To continue where it was, run it again: emberd migrate run")
        assert (stores.read(server.home / "notes.db", "vec_notes")[1] == before).all()

        press(notes, "Continue")
        with starts_held(server):
            press(asked, "Continue")
            expect(notes.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    with opened(browser, server, "stores") as page:  # it went on without the page
        notes, asked = card(page, "notes"), page.get_by_role("dialog")
        expect(notes.get_by_text("Moved to new.")).to_be_visible(timeout=SLOWLY)
        expect(notes).to_contain_text(re.compile(f"{ROWS:,} rows, .* before it was stopped"))
        expect(notes).to_contain_text("emberd use new")
        expect(notes.locator("h2 + .state")).to_have_text("does not fit")
        assert not (stores.read(server.home / "notes.db", "vec_notes")[1] == before).all()
        assert_accessible(page)

        press(notes, "Undo")
        expect(asked).to_contain_text("emberd migrate undo notes --yes")
        press(asked, "Undo")
        expect(notes.get_by_text("Restored", exact=True)).to_be_visible(timeout=SLOWLY)
        expect(notes.locator("h2 + .state")).not_to_have_text("does not fit")
        expect(notes.get_by_role("button", name="Undo")).to_have_count(0)
    assert (stores.read(server.home / "notes.db", "vec_notes")[1] == before).all()
    lines = {row["line"] for kind in ("migrate", "undo") for row in rows_of(server, kind)}
    assert lines == {"emberd migrate run notes --to new --yes", "emberd migrate undo notes --yes"}


def test_a_store_that_is_not_there_says_so_and_offers_nothing(
    browser: Browser, server: Server
) -> None:
    with opened(browser, server, "stores") as page:
        lost = card(page, "lost")
        expect(lost.get_by_text("There is nothing at")).to_contain_text("nowhere/lost.db")
        expect(lost).to_contain_text("stores.lost.path")
        expect(lost.get_by_role("button")).to_have_count(0)


def test_a_refusal_is_shown_where_it_was_asked_for(browser: Browser, server: Server) -> None:
    with opened(browser, server, "stores") as page:
        letters = card(page, "letters")
        with starts_held(server):
            other = jobs.begin(server, "check", store="letters")
            expect(letters.get_by_role("button", name="Check")).to_be_disabled()
            expect(letters.get_by_role("button", name="Stop")).to_be_visible()
        jobs.ended(server, other["id"])
        expect(letters.get_by_text("Its users get new, another space")).to_be_visible()


def test_without_a_store_it_says_how_to_add_one(browser: Browser, home: Path) -> None:
    with (
        Server(home, share_compiled=False) as server,
        opened(browser, server, "stores", width=WIDTHS["phone"]) as page,
    ):
        expect(page.get_by_text("No store is configured")).to_be_visible()
        assert_nothing_is_cut(page)
        expect(page.get_by_text("path: ~/notes.db")).to_be_visible()
        assert_accessible(page)
        (home / "config.yaml").write_text("stores: {added: {path: added.db}}\n")
        page.get_by_role("link", name="Now").click()
        page.get_by_role("link", name="Stores").click()
        expect(card(page, "added")).to_contain_text("not there")
