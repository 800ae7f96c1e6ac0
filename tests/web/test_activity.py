"""Activity: requests as they end, which failed, where their time went; never their texts."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.serving import Server
from tests.web.browsing import LOOKS, Scheme, assert_accessible, assert_nothing_is_cut, opened

SECRET = "a text that nobody else may see"  # noqa: S105


def test_a_request_appears_as_it_ends_without_its_texts(browser: Browser, small: Server) -> None:
    with opened(browser, small, "activity") as page:
        small.embed(SECRET, "b", model="other")

        row = page.locator("tbody tr").first
        expect(row).to_contain_text("POST /embed")
        for part in ("native", "other", "200"):
            expect(row).to_contain_text(part)
        expect(row.locator(".stages span").first).to_be_attached()
        expect(row.locator(".unseen")).to_contain_text("ms in the model")
        assert SECRET not in page.content()


def test_errors_and_models_can_be_picked_out(browser: Browser, small: Server) -> None:
    small.embed("a", model="tiny")
    small.embed("a", model="other")
    small.http.post("/v1/embeddings", json={"model": "minlm", "input": "a"})
    with opened(browser, small, "activity") as page:
        rows = page.locator("tbody tr")
        expect(rows.filter(has_text="404").first).to_contain_text("POST /v1/embeddings")

        page.get_by_label("Only errors").check()
        for row in rows.all():
            expect(row.locator(".state")).to_have_class("state bad")

        page.get_by_label("Only errors").uncheck()
        page.get_by_label("Model").select_option("tiny")
        expect(rows.first).to_contain_text("tiny")
        expect(rows.filter(has_text="other")).to_have_count(0)


def test_looking_at_the_page_is_no_activity(browser: Browser, home: Path) -> None:
    with Server(home) as fresh, opened(browser, fresh, "activity") as page:
        fresh.http.get("/models")

        expect(page.get_by_role("heading", name="Nothing has been asked yet")).to_be_visible()
        expect(page.locator(".command")).to_contain_text(f"curl {fresh.url}/embed")


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_many_requests_are_whole_and_readable(
    browser: Browser, small: Server, width: int, scheme: Scheme
) -> None:
    for number in range(5):
        small.embed(*"abc"[: 1 + number % 3])
        small.http.post("/api/embed", json={"model": "nobody", "input": "a"})
    with opened(browser, small, "activity", width=width, scheme=scheme) as page:
        expect(page.locator("tbody tr").nth(9)).to_be_attached()

        assert_accessible(page)
        assert_nothing_is_cut(page)
