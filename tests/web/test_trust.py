"""The view Trust: what models are made of, checks as they run, and what to do about a change."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests import jobs
from tests.faults.troubled import loading_held, serve_troubled
from tests.migrate import stores
from tests.serving import Server, wait_for
from tests.web.browsing import (
    SCHEMES,
    SLOW_MS,
    WIDTHS,
    Scheme,
    assert_accessible,
    assert_nothing_is_cut,
    opened,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve_troubled(tmp_path_factory.mktemp("trust") / "home", config=jobs.CONFIG) as running:
        for name in ("old", "new"):
            running.embed("a", model=name)
        yield running


def card(page: Page, name: str) -> Locator:
    """Return the block of a model."""
    return page.locator(f"#trust-{name}")


def test_a_model_shows_its_space_and_its_files_with_hashes_to_copy(
    browser: Browser, server: Server
) -> None:
    folder = stores.TINY / "bert"
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    with opened(browser, server, "trust") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        old = card(page, "old")
        expect(old.locator("summary").first).to_contain_text(server.row("old")["fingerprint"])
        expect(old).to_contain_text("as accepted")
        expect(old).to_contain_text(str(folder))
        expect(old).to_contain_text("64 dimensions, pooling mean")

        old.get_by_text("with their hashes").click()
        row = old.get_by_role("row").filter(has_text="model.safetensors")
        expect(row).to_contain_text(weights)
        row.get_by_role("button", name="Copy the hash of model.safetensors").click()
        expect(row.get_by_role("button")).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == weights


@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_checks_come_as_they_run_and_the_verdict_stays(
    browser: Browser, server: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, server, "trust", width=width, scheme=scheme) as page:
        new = card(page, "new")
        with loading_held(server):
            new.get_by_role("button", name="Verify").click()
            expect(new.get_by_role("button", name="Verify")).to_be_disabled()
            expect(new.get_by_role("button", name="Stop")).to_be_visible()
            expect(new.get_by_text(re.compile(r"checks so far"))).to_be_visible(timeout=SLOW_MS)
            expect(new.get_by_role("cell", name="files", exact=True)).to_be_visible(timeout=SLOW_MS)
        expect(new.get_by_text(re.compile("No check failed"))).to_be_visible(timeout=SLOW_MS)
        expect(new.get_by_role("button", name="Stop")).to_have_count(0)
        expect(new.get_by_role("cell", name="paraphrases", exact=True)).to_be_visible()
        assert_accessible(page)
        assert_nothing_is_cut(page)

        page.reload()
        expect(card(page, "new").get_by_text(re.compile("No check failed"))).to_be_visible()


def test_a_pull_asks_first_and_shows_its_line(browser: Browser, server: Server) -> None:
    with opened(browser, server, "trust") as page:
        old = card(page, "old")
        old.get_by_role("button", name="Pull").click()
        asked = page.get_by_role("dialog")
        expect(asked).to_contain_text("emberd pull old")
        assert_accessible(page)
        page.keyboard.press("Escape")
        expect(asked).to_have_count(0)
        assert not [row for row in server.http.get("/jobs").json()["jobs"] if row["kind"] == "pull"]

        old.get_by_role("button", name="Pull").click()
        asked.get_by_role("button", name="Pull").click()
        expect(old.get_by_text("unchanged since it was last used")).to_be_visible(timeout=SLOW_MS)
    (row,) = (row for row in server.http.get("/jobs").json()["jobs"] if row["kind"] == "pull")
    assert row["line"] == "emberd pull old"


def test_a_change_is_told_with_what_to_do_and_never_accepted_here(
    browser: Browser, home: Path
) -> None:
    model = f"sources: [{{path: {stores.TINY / 'bert'}}}], dimensions: 64, pooling: mean"
    with Server(home, config=f"default: mine\nmodels: {{mine: {{{model}}}}}\n") as server:
        before = server.embed("a")["fingerprint"]
        with opened(browser, server, "trust") as page:
            expect(card(page, "mine")).to_contain_text("as accepted")
            (home / "config.yaml").write_text(
                f"default: mine\nmodels: {{mine: {{{model}, max_tokens: 20}}}}\n"
            )
            wait_for(lambda: server.embed("a")["fingerprint"] != before)

            mine = card(page, "mine")
            expect(mine.get_by_text("texts are cut after")).to_be_visible()
            expect(mine.locator("summary").first).to_contain_text("changed")
            expect(mine).to_contain_text(before)
            expect(mine).to_contain_text("emberd verify --accept mine")
            expect(mine.get_by_role("button", name=re.compile("ccept"))).to_have_count(0)
            assert_accessible(page)


def test_where_nothing_was_used_it_says_how_to_begin(browser: Browser, home: Path) -> None:
    with (
        Server(home, share_compiled=False) as server,
        opened(browser, server, "trust", width=WIDTHS["phone"]) as page,
    ):
        expect(page.get_by_text("No model has been used here yet")).to_be_visible()
        assert_nothing_is_cut(page)
        assert_accessible(page)
