"""A real browser at a server's page: what it shows, and whatever it complains about."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

from tests.serving import Server

ROOT = Path(__file__).parents[2]
WIDTHS = {"phone": 390, "desk": 1440}
SLOW_MS = 60_000  # a model is loaded, a process started or UMAP computed, beside other tests
COSTLY = "GPU stall due to ReadPixels"  # what drawing by the processor takes, and a screenshot
LOST = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET", "ERR_SOCKET_NOT_CONNECTED")  # fmt: skip
"""What Chromium says on the console of a server that ended: `expects` of `opened`."""
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
LOOKS = [
    pytest.param(width, scheme, id=f"{name}-{scheme}", marks=marks)
    for (name, width), scheme, marks in (
        (("phone", 390), "light", pytest.mark.slow),
        (("phone", 390), "dark", ()),
        (("desk", 1440), "light", ()),
        (("desk", 1440), "dark", pytest.mark.slow),
    )
]
"""Values of `width` and `scheme`: without --all each is seen once, and not every pair of them."""
OFFLINE = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",
)  # fmt: skip


class NoBrowserError(Exception):
    """There is no browser, and none can be installed; the message says what to do."""


def launch(playwright: Playwright) -> Browser:
    """Start the Chromium of this machine; it asks no server but ours for anything.

    Raises NoBrowserError.
    """
    found = subprocess.run([ROOT / "scripts" / "browser"], capture_output=True, check=False)
    if found.returncode:
        raise NoBrowserError(found.stderr.decode().strip())
    path = found.stdout.decode().strip()
    return playwright.chromium.launch(executable_path=path, args=list(OFFLINE))


@contextmanager
def opened(
    browser: Browser,
    server: Server,
    view: str = "now",
    *,
    width: int = WIDTHS["desk"],
    scheme: Scheme = "light",
    expects: tuple[str, ...] = (),
) -> Iterator[Page]:
    """Yield the page at one of its views; at the end, nothing may have been said on its console.

    Violations of the page's policy, failed requests for its files and uncaught errors are said
    there, too. `expects`: parts of what the test itself provokes, such as a request that is
    refused.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    said: list[str] = []
    unanswered: Counter[str] = Counter()

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and COSTLY not in message.text:
            said.append(message.text)

    try:
        page = context.new_page()
        page.set_default_timeout(SLOW_MS)
        page.on("console", note)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: unanswered.update([request.url]))
        page.on("response", lambda response: unanswered.subtract([response.url]))
        page.goto(f"{server.url}/ui/#/{view}")
        page.locator("main h1").wait_for()
        yield page
    except BaseException as error:
        error.add_note(f"The page had said {said}, and waited for {[*+unanswered]}.")
        raise
    finally:
        context.close()
    unexpected = [each for each in said if not any(part in each for part in expects)]
    assert not unexpected, unexpected


def assert_accessible(page: Page) -> None:
    """Have axe-core look at the page as it is now; no serious finding is allowed."""
    found = Axe().run(page).response["violations"]
    serious = [
        (each["id"], node["html"], node.get("failureSummary"))
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert serious == []


CUT = """() => {
  const styles = new Map();
  const styleOf = (element) => {
    if (!styles.has(element)) styles.set(element, getComputedStyle(element));
    return styles.get(element);
  };
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true });
  const found = [];
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) found.push(`the page: ${page.scrollWidth} px wide`);

  // Every piece of text is inside each box around it that cuts, up to one that scrolls by itself.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const parent = text.parentElement;
    if (!text.data.trim() || !isShown(parent)) continue;
    if (parent.closest("select, textarea, script, noscript, .unseen, .skip")) continue;
    range.selectNodeContents(text);
    const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
    for (let around = parent; around; around = around.parentElement) {
      const { overflowX, overflowY } = styleOf(around);
      if (overflowX === "visible" && around !== document.body) continue;
      const scrolls = overflowX === "auto" || overflowX === "scroll";
      if (scrolls && around.tabIndex === 0) break; // by the keyboard, too
      const edge = around.getBoundingClientRect();
      const across = boxes.some((box) => box.left < edge.left - 1 || box.right > edge.right + 1);
      const along = ["hidden", "clip"].includes(overflowY) && !around.matches(".excerpt, body")
        && boxes.some((box) => box.top < edge.top - 1 || box.bottom > edge.bottom + 1);
      if (across || along) found.push(`${around.tagName} ${around.className}: ${text.data.trim()}`);
    }
  }

  // A select shows the chosen option whole, or that stands beside it.
  const pen = document.createElement("canvas").getContext("2d");
  for (const select of document.querySelectorAll("select")) {
    const chosen = select.selectedOptions[0]?.text ?? "";
    const style = styleOf(select);
    pen.font = style.font;
    const room = select.clientWidth - parseFloat(style.paddingLeft) - 20; // of the arrow
    const beside = [...select.parentElement.children].filter((each) => each !== select);
    const isWhole = pen.measureText(chosen).width <= room
      || beside.some((each) => isShown(each) && each.innerText.includes(chosen));
    if (isShown(select) && !isWhole) found.push(`select: ${chosen}`);
  }
  return found;
}"""


def assert_nothing_is_cut(page: Page) -> None:
    """Say that all text and every chosen option is seen whole.

    Tables and code may scroll by themselves, if the keyboard can do that, too. Of an excerpt of a
    text (`.excerpt`) there may be more; names, paths and messages are none.
    """
    found = page.evaluate(CUT)
    assert not found, found
