"""The section `map` of page.py: a store of 100,000 rows, read and then moved in the browser."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page

from tests.migrate.stores import make_cmem
from tests.serving import Server

ROWS = 100_000
DIMENSIONS = 384
CLUSTERS = 24
MOVES = 120  # of the pointer, in each drag
READ_MS = 300_000
FRAMES = """() => {
  window.frames = []; // only those in which points were drawn
  let [before, drew] = [performance.now(), false];
  const kind = WebGL2RenderingContext.prototype;
  window.drawArrays ??= kind.drawArrays;
  kind.drawArrays = function(...more) { drew = true; return window.drawArrays.apply(this, more); };
  const frame = now => {
    if (drew) window.frames.push(now - before);
    [before, drew] = [now, false];
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


def map_section(browser: Browser, _server: Server) -> dict[str, Any]:
    """Return how long the store takes to be drawn, and times from frame to frame, in ms."""
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        _make_store(home)
        config = "stores: {large: {path: large, kind: cmem}}\n"
        with Server(home, config=config) as server:
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            began_s = time.monotonic()
            page.goto(f"{server.url}/ui/#/map/large")
            page.locator(".picture canvas").wait_for(timeout=READ_MS)
            drawn_s = time.monotonic() - began_s
            page.wait_for_timeout(2000)
            found: dict[str, Any] = {
                "rows": ROWS, "dimensions": DIMENSIONS, "drawn_after_s": round(drawn_s, 1),
            }  # fmt: skip
            for name, act in (("pan", _pan), ("zoom", _zoom)):
                page.evaluate(FRAMES)
                act(page)
                times = sorted(page.evaluate("window.frames"))
                found[name] = {
                    "frames": len(times),
                    "p50_ms": round(times[len(times) // 2], 1),
                    "p95_ms": round(times[int(len(times) * 0.95)], 1),
                    "most_ms": round(times[-1], 1),
                }
            page.context.close()
    return found


def _make_store(home: Path) -> None:
    chance = np.random.default_rng(1)
    centres = chance.normal(size=(CLUSTERS, DIMENSIONS))
    of = chance.integers(0, CLUSTERS, ROWS)
    vectors = centres[of] + 1.2 * chance.normal(size=(ROWS, DIMENSIONS))
    texts = [f"row {row} of cluster {cluster}" for row, cluster in enumerate(of)]
    make_cmem(home / "large", texts, vectors.astype(np.float32))


def _middle(page: Page) -> tuple[float, float]:
    box = page.locator(".picture canvas").bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _pan(page: Page) -> None:
    x, y = _middle(page)
    for side in (1, -1):
        page.mouse.move(x, y)
        page.mouse.down()
        for step in range(MOVES):
            page.mouse.move(x + side * 2 * step, y + side * step)
        page.mouse.up()


def _zoom(page: Page) -> None:
    page.mouse.move(*_middle(page))
    for way in (-60, 60):
        for _ in range(MOVES // 2):
            page.mouse.wheel(0, way)
            page.wait_for_timeout(16)
