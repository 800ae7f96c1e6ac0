"""Map, by the pixels on the screen: a colour for each model, what is found is lit, no old news."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from emberd.vectors import Matrix
from tests.atlas.maps import OF_NEW, ROWS, texts
from tests.migrate import stores
from tests.serving import Server
from tests.web.browsing import SLOW_MS, opened
from tests.web.pixels import Mask, Pixels, colour, has, pixels
from tests.web.test_map import heading, map_of

REACH = 7  # pixels from the middle of a point that is lit to its edge, and a little more


def picture(page: Page) -> Locator:
    """Return the canvas, with no pointer above it."""
    page.mouse.move(0, 0)
    expect(page.locator(".tip")).to_have_count(0)
    return page.locator(".picture canvas")


def places(server: Server, store: str, seen: tuple[int, int]) -> Matrix:
    """Return where the points of a whole map are in a picture of that height and width, `(N, 2)`.

    They take 92 % of it, as `plane.js` says.
    """
    raw = server.http.get("/map/points", params={"store": store}).content
    xy = np.frombuffer(raw[: 8 * (len(raw) // 10)], "<f4").reshape(-1, 2)
    low, high = xy.min(axis=0), xy.max(axis=0)
    size = np.array(seen[::-1])
    scale = 0.92 * (size / (high - low)).min()
    return np.asarray((xy - (low + high) / 2) * [scale, -scale] + size / 2, np.float32)


def middle_of(canvas: Locator) -> Pixels:
    """Return what is seen but for the edge, whose round corners depend on fractions of a pixel."""
    return pixels(picture(canvas.page))[20:-20, 20:-20]


def around(mask: Mask, place: Matrix, reach: int = 1) -> bool:
    """Say whether a mask holds anywhere near a place."""
    x, y = np.rint(place).astype(int)
    return bool(mask[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].any())


def test_each_model_of_a_mixed_store_has_a_colour_where_its_rows_are(
    browser: Browser, mapped: Server
) -> None:
    with map_of(browser, mapped, "mixed") as page:
        page.get_by_role("button", name="Find out which model").click()
        expect(page.get_by_text("The store is mixed.")).to_be_visible(timeout=SLOW_MS)
        canvas = picture(page)
        old, new = (colour(canvas, hue) for hue in ("--hue-0", "--hue-1"))
        seen = pixels(canvas)
        at = places(mapped, "mixed", seen.shape[:2])
        page.locator(".groups button").nth(0).click()
        without_old = pixels(picture(page))

    for wanted, rows in ((old, at[:-OF_NEW]), (new, at[-OF_NEW:])):
        drawn = has(seen, wanted)
        assert drawn.sum() > 500
        assert np.mean([around(drawn, place) for place in rows]) > 0.9
    assert not has(without_old, old).any()
    assert has(without_old, new).sum() > 500


def test_what_a_search_has_found_is_lit_and_all_else_pale(browser: Browser, mapped: Server) -> None:
    found = {"store": "notes", "text": texts()[700], "count": 50}
    with map_of(browser, mapped, "notes") as page:
        canvas = picture(page)
        accent, plain = colour(canvas, "--accent"), colour(canvas, "--neutral")
        before = pixels(canvas)
        page.get_by_label("A text, whose neighbours light up").fill(texts()[700])
        page.get_by_role("button", name="Search", exact=True).click()
        heading(page, f"Nearest to “{texts()[700]}”")
        after = pixels(picture(page))
        at = places(mapped, "notes", after.shape[:2])
        rows = [hit["row"] for hit in mapped.http.post("/map/search", json=found).json()["rows"]]
        page.get_by_role("button", name="Clear").click()
        cleared = pixels(picture(page))

    assert not has(before, accent).any()
    assert has(before, plain).sum() > 500
    lit = has(after, accent)
    assert np.mean([around(lit, at[row]) for row in rows]) > 0.9
    nearest = [np.abs(at[rows] - (x, y)).max(axis=1).min() for y, x in np.argwhere(lit)]
    assert max(nearest) <= REACH
    assert not has(after, plain).any()
    assert np.array_equal(cleared, before)


def test_what_a_lasso_encloses_is_lit(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        canvas = picture(page)
        accent = colour(canvas, "--accent")
        box = drag_lasso(page, canvas, share=0.5)
        page.mouse.up()
        heading(page, r := page.locator("#map-list").inner_text())
        assert r.endswith("rows enclosed")
        seen = pixels(picture(page))
        at = places(mapped, "notes", seen.shape[:2])

    inside = at[at[:, 0] < box]
    lit = np.argwhere(has(seen, accent))[:, 1]
    assert int(r.split()[0].replace(",", "")) == pytest.approx(len(inside), abs=20)
    assert 0 < len(inside) < ROWS
    assert box - 3 * REACH < lit.max() <= box + REACH


def drag_lasso(page: Page, canvas: Locator, *, share: float) -> float:
    """Draw around the left part of the picture, and hold on; return where that ends."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    page.get_by_role("button", name="Lasso").click()
    edge = box["width"] * share
    left, right = box["x"] + 2, box["x"] + edge
    top, low = box["y"] + 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top + 3)):
        page.mouse.move(x, y, steps=4)
    return edge


def test_only_the_main_button_moves_the_map(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        canvas = picture(page)
        before = middle_of(canvas)
        for button, moves in (("right", False), ("middle", False), ("left", True)):
            canvas.hover(position={"x": 200, "y": 200})
            page.mouse.down(button=button)  # type: ignore[arg-type]
            canvas.hover(position={"x": 320, "y": 260})
            page.mouse.up(button=button)  # type: ignore[arg-type]

            assert np.array_equal(middle_of(canvas), before) is not moves, button
            expect(page.locator("#map-list")).to_have_count(0)


def test_a_lasso_that_the_system_has_cancelled_is_none(browser: Browser, mapped: Server) -> None:
    with map_of(browser, mapped, "notes") as page:
        canvas = picture(page)
        canvas.evaluate(
            "(element) => element.addEventListener('pointerdown',"
            " ({ pointerId }) => (element.dataset.pointer = pointerId))"
        )
        drag_lasso(page, canvas, share=0.5)
        expect(page.locator("svg.lasso")).to_be_attached()
        canvas.evaluate(
            "(element) => element.dispatchEvent(new PointerEvent('pointercancel',"
            " { pointerId: Number(element.dataset.pointer), bubbles: true }))"
        )

        expect(page.locator("svg.lasso")).to_have_count(0)
        canvas.hover(position={"x": 300, "y": 300})
        page.mouse.up()
        expect(page.locator("svg.lasso")).to_have_count(0)
        expect(page.locator("#map-list")).to_have_count(0)


@pytest.fixture
def changing(home: Path) -> Iterator[Server]:
    """A server with a store of 300 rows."""
    home.mkdir()
    stores.make_cmem(home / "notes", stores.texts(300), vectors_of(300))
    with Server(home, config="stores: {notes: {path: notes, kind: cmem}}\n") as running:
        yield running


def vectors_of(rows: int) -> Matrix:
    """Return vectors `(rows, 64)` that are those of no other number of rows."""
    return np.random.default_rng(rows).normal(size=(rows, 64)).astype(np.float32)


def read_anew(server: Server, rows: int) -> None:
    """Have the store hold other rows, and the server read them, while the page waits."""
    database = stores.connect(server.home / "notes" / "memories.db")
    with database:
        database.execute("DELETE FROM memories; DELETE FROM vec_memories")
        stores.add(database, range(1, rows + 1), stores.texts(rows), vectors_of(rows))
    database.close()
    body = {"store": "notes", "again": True}
    while server.http.post("/map", json=body).json()["state"] != "ready":
        body = {"store": "notes"}


def test_points_of_another_reading_are_not_drawn_as_of_this_one(
    browser: Browser, changing: Server
) -> None:
    with opened(browser, changing) as page:
        left = [200]

        def late(route: Route) -> None:
            if left:
                read_anew(changing, left.pop())
            route.continue_()

        page.route("**/map/points*", late)
        page.goto(f"{changing.url}/ui/#/map/notes")

        expect(page.locator(".groups button")).to_have_text(["not known yet200"], timeout=SLOW_MS)
        expect(page.get_by_text("200 rows of 64 dimensions.")).to_be_visible()
        page.get_by_role("button", name="List what is in view").click()
        heading(page, "200 rows in view")


@pytest.mark.slow
def test_a_sample_of_another_reading_is_fetched_again_and_refined(
    browser: Browser, changing: Server
) -> None:
    with map_of(browser, changing, "notes") as page:

        def late(route: Route) -> None:
            read_anew(changing, 100)
            route.continue_()

        page.route("**/map/components*", late, times=1)
        page.get_by_role("button", name="Refine by UMAP").click()

        expect(page.get_by_text("100 rows of 64 dimensions.")).to_be_visible(timeout=SLOW_MS)
        of_new = page.get_by_text("The map shows a sample of 100 of 100 points")  # it goes on
        expect(of_new).to_be_visible(timeout=SLOW_MS)
        expect(page.get_by_role("button", name="Refine by UMAP")).to_be_visible(timeout=SLOW_MS)
        page.get_by_role("button", name="List what is in view").click()
        heading(page, "100 rows in view")
