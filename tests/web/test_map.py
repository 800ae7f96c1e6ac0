"""The view Map in a real browser: a store is read, seen, moved, enclosed, searched and refined."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.atlas.maps import HOSTILE, OF_NEW, ROWS, make_large, texts
from tests.serving import Server, wait_for
from tests.web.browsing import (
    LOOKS,
    SLOW_MS,
    WIDTHS,
    Scheme,
    assert_accessible,
    assert_nothing_is_cut,
    opened,
)


@contextmanager
def map_of(
    browser: Browser,
    server: Server,
    store: str,
    *,
    width: int = WIDTHS["desk"],
    scheme: Scheme = "light",
) -> Iterator[Page]:
    """Yield the page once the map of a store is drawn."""
    with opened(browser, server, f"map/{store}", width=width, scheme=scheme) as page:
        page.locator(".picture canvas").wait_for(timeout=SLOW_MS)
        yield page


def heading(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait for the heading of the list."""
    expect(page.locator("#map-list")).to_have_text(text, timeout=SLOW_MS)


def enclose_all(page: Page) -> None:
    """Draw a lasso around the whole picture."""
    page.locator(".picture canvas").scroll_into_view_if_needed()
    box = page.locator(".picture canvas").bounding_box()
    assert box
    page.get_by_role("button", name="Lasso").click()
    left, top = box["x"] + 5, box["y"] + 5
    right, low = box["x"] + box["width"] - 5, box["y"] + box["height"] - 5
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top + 3)):
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


HELD = """() => {
  const Real = Worker;
  window.Worker = class extends Real {
    set onmessage(act) {
      super.onmessage = (event) => {
        const { what, done, total } = event.data;
        if (what === "layout" && done === total) window.finish = () => act(event);
        else act(event);
      };
    }
  };
}"""
"""Has the page's UMAP come to no end before `finish` is called."""


def end_map(server: Server, *again: str) -> None:
    """End the maps that are held, by reading two stores that nobody looks at; read some again."""
    for store in ("int8", "odd", *again):
        while server.http.post("/map", json={"store": store}).json()["state"] != "ready":
            pass


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_mixed_store_is_seen(
    browser: Browser, mapped: Server, width: int, scheme: Scheme
) -> None:
    with map_of(browser, mapped, "mixed", width=width, scheme=scheme) as page:
        if (again := page.get_by_role("button", name="Find out which model")).count():
            again.click()
        expect(page.get_by_text("The store is mixed.")).to_be_visible(timeout=SLOW_MS)

        legend = page.locator(".groups button")
        expect(legend).to_have_text([f"old{ROWS - OF_NEW}", f"new{OF_NEW}"])
        legend.nth(0).click()
        page.get_by_role("button", name="List what is in view").click()
        heading(page, f"{OF_NEW} rows in view")  # those of the other model are hidden

        assert_accessible(page)
        assert_nothing_is_cut(page)


def test_a_store_is_read_again_and_then_checked(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "mixed") as page:
        page.get_by_role("button", name="Read the store again").click()
        page.get_by_role("button", name="Find out which model").click(timeout=SLOW_MS)
        legend = page.locator(".groups button")
        wanted = [f"old{ROWS - OF_NEW}", f"new{OF_NEW}"]
        expect(legend).to_have_text(wanted, timeout=SLOW_MS)

        end_map(mapped, "mixed")
        page.get_by_role("button", name="List what is in view").click()  # there is another map
        expect(legend).to_have_text([f"not known yet{ROWS:,}"], timeout=SLOW_MS)


def test_without_a_name_it_shows_the_first_store(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "") as page:
        expect(page.get_by_label("Store")).to_have_value("notes")


def test_hostile_texts_are_shown_as_they_are(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        title = page.title()
        page.get_by_label("A text, whose neighbours light up").fill(HOSTILE[0])
        page.get_by_role("button", name="Search", exact=True).click()
        heading(page, f"Nearest to “{HOSTILE[0]}”")

        first = page.locator(".hits button").first
        expect(first.locator("span").first).to_have_text(HOSTILE[0])
        assert page.title() == title
        assert page.locator("main img, main script").count() == 0
        page.get_by_label("A text, whose neighbours light up").fill(HOSTILE[1])
        page.keyboard.press("Enter")
        expect(page.locator(".hits button").first.locator("span").first).to_have_text(HOSTILE[1])
        direction = "getComputedStyle(document.querySelector('.hits span')).direction"
        assert page.evaluate(direction) == "rtl"
        page.get_by_label("A text, whose neighbours light up").fill(HOSTILE[2])
        page.keyboard.press("Enter")
        expect(page.locator(".hits button").first.locator("span").first).to_have_text(
            HOSTILE[2][:300]
        )
        assert_nothing_is_cut(page)


def test_the_pointer_shows_a_text_and_a_lasso_lists_many(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        page.locator(".picture canvas").scroll_into_view_if_needed()
        box = page.locator(".picture canvas").bounding_box()
        assert box
        for step in range(40):  # somewhere in the middle there is a point
            page.mouse.move(box["x"] + box["width"] * (0.3 + step * 0.01), box["y"] + 300)
            page.wait_for_timeout(200)  # the text is asked for
            if page.locator(".tip").count():
                break
        expect(page.locator(".tip p").first).to_be_visible()
        assert page.locator(".tip p").first.inner_text() in {text[:300] for text in texts()}

        enclose_all(page)
        heading(page, "1,200 rows enclosed")
        expect(page.locator(".hits button")).to_have_count(50)
        page.get_by_role("button", name=re.compile("Show more")).click()
        expect(page.locator(".hits button")).to_have_count(100)


def test_everything_goes_by_the_keyboard(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        page.locator(".picture canvas").focus()
        page.keyboard.press("Enter")
        heading(page, "1,200 rows in view")
        for _ in range(12):
            page.keyboard.press("+")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        heading(page, re.compile(r"^(?!1,200)[\d,]+ rows in view"))
        page.keyboard.press("0")
        page.keyboard.press("Enter")
        heading(page, "1,200 rows in view")

        page.locator(".hits button").nth(3).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".hits button").nth(3)).to_have_attribute("aria-pressed", "true")
        page.locator(".picture canvas").focus()
        page.keyboard.press("Enter")  # it has come closer to that row
        heading(page, re.compile(r"^(?!1,200)[\d,]+ rows in view"))


def test_refine_shows_a_sample_and_goes_back(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        page.evaluate(HELD)
        page.get_by_role("button", name="Refine by UMAP").click()
        expect(page.get_by_role("button", name="Stop here")).to_be_visible()
        wait_for(lambda: page.evaluate("() => 'finish' in window"), within_s=60)
        page.evaluate("finish()")
        expect(page.get_by_role("button", name="Stop here")).to_have_count(0)
        expect(page.get_by_text("The map shows a sample of")).to_be_visible()
        page.get_by_role("button", name="List what is in view").click()
        heading(page, "1,200 rows in view")
        page.get_by_role("button", name="Show all points again").click()
        expect(page.get_by_text("Placed by two principal components")).to_be_visible()

        page.get_by_role("button", name="Refine by UMAP").click()
        page.get_by_text("Placing the rows").wait_for(timeout=SLOW_MS)
        page.get_by_role("button", name="Stop here").click()
        expect(page.get_by_role("button", name="Refine by UMAP")).to_be_visible()


def test_a_lasso_goes_on_while_rows_are_placed(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        page.evaluate(HELD)
        page.get_by_role("button", name="Refine by UMAP").click()
        page.get_by_text("Placing the rows").wait_for(timeout=SLOW_MS)
        enclose_all(page)
        heading(page, "1,200 rows enclosed")


def test_refine_stops_while_the_sample_is_fetched(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        page.route("**/map/components*", lambda _: None)  # its answer takes a while
        page.get_by_role("button", name="Refine by UMAP").click()
        with page.expect_event("requestfailed"):
            page.get_by_role("button", name="Stop here").click()
        expect(page.get_by_role("button", name="Refine by UMAP")).to_be_visible()


def test_the_picture_comes_back_after_its_context_was_lost(
    browser: Browser, mapped: Server
) -> None:
    said = ("CONTEXT_LOST_WEBGL",)
    with opened(browser, mapped, "map/notes", expects=said) as page:
        picture = page.locator(".picture canvas")
        picture.wait_for(timeout=SLOW_MS)
        before = picture.screenshot()
        page.evaluate(
            """async () => {
              const canvas = document.querySelector(".picture canvas");
              const context = (canvas.getContext("webgl2") ?? canvas.getContext("webgl"))
                .getExtension("WEBGL_lose_context");
              const told = (name) =>
                new Promise((done) => canvas.addEventListener(name, done, { once: true }));
              const lost = told("webglcontextlost");
              context.loseContext();
              await lost;
              const restored = told("webglcontextrestored");
              setTimeout(() => context.restoreContext());
              await restored;
            }"""
        )
        wait_for(lambda: picture.screenshot() == before)


def test_a_store_that_cannot_be_read_says_why(browser: Browser, mapped: Server) -> None:
    refused = ("Failed to load resource",)
    with opened(browser, mapped, "map/gone", expects=refused) as page:
        expect(page.get_by_role("alert")).to_contain_text("gone.db", timeout=SLOW_MS)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_contain_text("gone.db", timeout=SLOW_MS)
        page.get_by_label("Store").select_option("empty")
        expect(page.get_by_text("empty has no vectors to show")).to_be_visible(timeout=SLOW_MS)


def test_without_webgl_it_says_so_and_the_search_works(browser: Browser, mapped: Server) -> None:
    with opened(browser, mapped) as page:
        page.evaluate(
            """() => {
              const before = HTMLCanvasElement.prototype.getContext;
              HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
                return kind.startsWith("webgl") ? null : before.call(this, kind, ...more);
              };
              location.hash = "#/map/notes";
            }"""
        )
        expect(page.get_by_text("offers no WebGL")).to_be_visible(timeout=SLOW_MS)
        page.get_by_label("A text, whose neighbours light up").fill(texts()[50])
        page.keyboard.press("Enter")
        expect(page.locator(".hits button").first).to_contain_text(texts()[50], timeout=SLOW_MS)
        page.locator(".hits button").first.click()


def test_a_map_that_was_ended_comes_back(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        page.get_by_role("button", name="List what is in view").click()
        heading(page, "1,200 rows in view")
        end_map(mapped)
        page.get_by_role("button", name=re.compile("Show more")).click()
        page.locator(".picture canvas").wait_for(timeout=SLOW_MS)
        page.get_by_role("button", name="List what is in view").click()
        heading(page, "1,200 rows in view")


@pytest.mark.slow
def test_a_hundred_thousand_points_are_all_there(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("large")
    make_large(home / "large")
    with (
        Server(home, config="stores: {large: {path: large, kind: cmem}}\n") as server,
        opened(browser, server, "map/large") as page,
    ):
        expect(page.get_by_role("status").first).to_be_visible()  # it says what it does meanwhile
        page.locator(".picture canvas").wait_for(timeout=5 * SLOW_MS)
        page.get_by_role("button", name="List what is in view").click()
        heading(page, "100,000 rows in view")
        page.get_by_role("button", name="Closer").click()
        page.locator(".picture canvas").focus()
        page.keyboard.press("Enter")
        heading(page, re.compile(r"^(?!100,000)[\d,]+ rows in view"))
        assert_nothing_is_cut(page)
