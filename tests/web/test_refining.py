"""Refine goes on when the process that held the map has ended, as it does when nobody asks."""

from playwright.sync_api import Browser, expect

from tests.serving import Server
from tests.web.browsing import SLOW_MS, opened
from tests.web.test_map import end_map


def test_refine_reads_a_map_anew_that_was_ended(browser: Browser, mapped: Server) -> None:
    with opened(browser, mapped, "map/notes", expects=("status of 404",)) as page:
        page.locator(".picture canvas").wait_for(timeout=SLOW_MS)
        end_map(mapped, "notes")

        page.get_by_role("button", name="Refine by UMAP").click()

        sample = page.get_by_text("The map shows a sample of")
        expect(sample).to_be_visible(timeout=SLOW_MS)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.get_by_role("button", name="Stop here")).to_have_count(0, timeout=SLOW_MS)
        page.get_by_role("button", name="Show all points again").click()
        expect(sample).to_have_count(0)
