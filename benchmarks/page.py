"""Measures the page in a real browser, against a real server on this machine.

python benchmarks/page.py             every section; kept in benchmarks/results/page.json
python benchmarks/page.py paint       only some, printed; nothing is kept

paint      from the navigation to the first and the largest paint, in a fresh browser profile
map        a store of 100,000 rows: until it is drawn, and from frame to frame as it is moved
watching   the server's own processor time while one page is open and nothing happens
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import psutil
from page_map import map_section
from playwright.sync_api import Browser, Page, sync_playwright

import emberd
from tests.serving import Server
from tests.web.browsing import launch

RESULTS = Path(__file__).parent / "results" / "page.json"
FILES = Path(emberd.__file__).parent / "web"
OPENINGS = 15
WATCH_S = 60.0
PAINTED = """() => new Promise(done => {
  new PerformanceObserver(list => {
    const [paint] = performance.getEntriesByName('first-contentful-paint');
    done([paint.startTime, list.getEntries().at(-1).startTime]);
  }).observe({type: 'largest-contentful-paint', buffered: true});
})"""


def paint(browser: Browser, server: Server) -> dict[str, Any]:
    """Return medians and the worst of some openings, in ms; nothing is in the browser's cache."""
    first, largest = [], []
    for _ in range(OPENINGS):
        page = opened(browser, server)
        one, other = page.evaluate(PAINTED)
        first.append(one)
        largest.append(other)
        page.context.close()
    return {
        "openings": OPENINGS,
        "first_ms": {"median": round(statistics.median(first)), "worst": round(max(first))},
        "largest_ms": {"median": round(statistics.median(largest)), "worst": round(max(largest))},
        "compressed_bytes": sum(
            len(gzip.compress(path.read_bytes())) for path in FILES.rglob("*") if path.is_file()
        ),
    }


def watching(browser: Browser, server: Server) -> dict[str, Any]:
    """Return the share of one core that the server uses for a page that is merely open."""
    process = psutil.Process(server.process.pid)
    page = opened(browser, server)
    time.sleep(2)  # its first answers
    began = process.cpu_times()
    time.sleep(WATCH_S)
    ended = process.cpu_times()
    page.context.close()
    used_s = ended.user + ended.system - began.user - began.system
    return {"seconds": WATCH_S, "percent_of_a_core": round(100 * used_s / WATCH_S, 2)}


def opened(browser: Browser, server: Server) -> Page:
    """Return the page in a context of its own, once it is connected."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(f"{server.url}/ui/")
    page.get_by_text(f"emberd {emberd.__version__}").wait_for()
    return page


SECTIONS: dict[str, Callable[[Browser, Server], dict[str, Any]]] = {
    "paint": paint,
    "watching": watching,
    "map": map_section,
}


def main() -> None:
    """Measure the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="SECTION")
    asked = parser.parse_args().sections
    found: dict[str, Any] = {"machine": machine.facts()}
    with (
        tempfile.TemporaryDirectory() as home,
        Server(Path(home)) as server,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        found["browser"] = f"Chromium {browser.version}"
        for name in asked or SECTIONS:
            found[name] = SECTIONS[name](browser, server)
            print(json.dumps({name: found[name]}))
        browser.close()
    if not asked:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
