"""A real browser at a server's page: what it shows, and whatever it complains about."""

import subprocess
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
COSTLY = "GPU stall due to ReadPixels"  # what drawing by the processor takes, and a screenshot
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

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and COSTLY not in message.text:
            said.append(message.text)

    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", note)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{server.url}/ui/#/{view}")
        page.locator("main h1").wait_for()
        yield page
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


def assert_nothing_is_cut(page: Page) -> None:
    """Say that the page is as wide as its window: only tables and code scroll, by themselves."""
    wide, window = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= window
