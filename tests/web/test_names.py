"""Names without an end: models and stores of 60 characters, and long paths, are seen whole."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import jobs
from tests.rerankers import FOLDER
from tests.serving import Server
from tests.web.browsing import LOOKS, SLOW_MS, WIDTHS, Scheme, assert_nothing_is_cut, opened
from tests.web.test_every_view import VIEWS
from tests.web.test_page import TINY

MODEL = "model" + "m" * 55
OTHER = "other" + "o" * 55
RANKER = "ranks" + "r" * 55
STORE = "store" + "s" * 55
GONE = "fewer" + "f" * 55
DEEP = "/".join(["folder" + "d" * 54] * 3)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose models and stores have names that no line can be broken in."""
    home = tmp_path_factory.mktemp("named")
    entry = f"{{sources: [{{path: {TINY}}}], dimensions: 64, pooling: mean}}"
    sorts = f"{{kind: rerank, pooling: cls, sources: [{{path: {FOLDER}}}]}}"
    (home / DEEP).mkdir(parents=True)
    config = (
        f"default: {MODEL}\nmodels:\n  {MODEL}: {entry}\n  {OTHER}: {entry}\n  {RANKER}: {sorts}\n"
        f"stores:\n  {STORE}: {{path: {DEEP}/a.db, options: {{text: notes.body}}}}\n"
        f"  {GONE}: {{path: {DEEP}/b.db}}\n"
    )
    with Server(home, config=config) as running:
        wanted = [f"the vector {number}" for number in range(60)]
        made = jobs.embedded(running, wanted, MODEL)
        jobs.make_store(home / DEEP / "a.db", wanted, made)
        running.embed("a", model=OTHER)
        running.http.post("/api/embed", json={"model": "n" * 60, "input": "a"})
        yield running


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
def test_long_names_are_whole_in_every_view(
    browser: Browser, named: Server, view: str, width: int
) -> None:
    with opened(browser, named, view, width=width) as page:
        expect(page.locator(".connection")).to_contain_text("emberd 0")
        expect(page.locator(".wait")).to_have_count(0, timeout=SLOW_MS)
        for each in page.locator("main details").all():
            each.evaluate("details => { details.open = true; }")
        for select in page.locator("main select").all():
            longest = max(select.locator("option").all_inner_texts(), key=len)
            select.select_option(longest.strip())
        assert_nothing_is_cut(page)


def answered(page: Page) -> None:
    """Wait until nothing is asked any more; then look."""
    expect(page.locator(".wait")).to_have_count(0, timeout=SLOW_MS)
    assert_nothing_is_cut(page)


@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
def test_long_names_are_whole_in_what_models_answer(
    browser: Browser, named: Server, width: int
) -> None:
    with opened(browser, named, "try", width=width) as page:
        page.get_by_label("Beside it").select_option(OTHER)
        page.get_by_role("button", name="Compare").click()
        page.get_by_role("table").nth(1).wait_for(timeout=SLOW_MS)
        page.get_by_label(f"Cosines by {MODEL}").focus()
        page.keyboard.press("ArrowRight")
        answered(page)
        page.goto(f"{named.url}/ui/#/try/nearest")
        page.get_by_label("Re-ranker").select_option(RANKER)
        page.get_by_role("button", name="Sort").click()
        page.get_by_role("region", name="By the re-ranker").wait_for(timeout=SLOW_MS)
        answered(page)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_long_names_are_whole_in_what_stores_answer(
    browser: Browser, named: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, named, "stores", width=width, scheme=scheme) as page:
        store = page.get_by_role("region", name=STORE, exact=True)
        store.get_by_role("button", name="Check").click()
        store.get_by_text("What the check found").wait_for(timeout=SLOW_MS)
        answered(page)
        store.get_by_label("Move to").select_option(OTHER)
        store.get_by_role("button", name="Plan").click()
        store.get_by_text("It is already in the space of").wait_for(timeout=SLOW_MS)
        answered(page)

        page.goto(f"{named.url}/ui/#/map/{STORE}")
        page.get_by_role("button", name=re.compile("Find out|Check again")).click(timeout=SLOW_MS)
        page.get_by_text("that were embedded again were made by").wait_for(timeout=SLOW_MS)
        page.get_by_label("A text, whose neighbours light up").fill("w" * 60)
        page.get_by_role("button", name="Search", exact=True).click()
        page.locator(".hits button").first.wait_for(timeout=SLOW_MS)
        answered(page)


def test_a_long_name_is_whole_where_it_is_confirmed(browser: Browser, named: Server) -> None:
    with opened(browser, named, "trust", width=WIDTHS["phone"]) as page:
        card = page.locator(f"#trust-{MODEL}")
        card.get_by_role("button", name="Pull").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"emberd pull {MODEL}")
        assert_nothing_is_cut(page)
