"""Holds what passes by itself while a page is looked at: processes, starts, the page's alarm."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Page

from tests.serving import Server

STARTS = """import os, sys, time
while {"--progress", "emberd.atlas"} & {*sys.orig_argv} and os.path.exists(
    os.environ["EMBERD_HOME"] + "/held"
):
    time.sleep(0.01)
"""
SILENCE = """(() => {
  const real = setTimeout;
  window.silences = [];
  window.setTimeout = (act, after, ...more) =>
    after === 5000 ? (silences.push(act), 0) : real(act, after, ...more);
})()"""


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Have a process do nothing meanwhile, so that nobody is answered."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def holdable(home: Path) -> str:
    """Return the `PYTHONPATH` of a server with which `starts_held` works, made in its home."""
    folder = home / "site"
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(STARTS)
    return str(folder)


@contextmanager
def starts_held(server: Server) -> Iterator[None]:
    """Have commands and maps that the server starts meanwhile do nothing yet."""
    held = server.home / "held"
    held.touch()
    try:
        yield
    finally:
        held.unlink()


def hold_silence(page: Page) -> None:
    """Load a page anew that notices a server's silence, after 5 s, no longer by itself."""
    page.add_init_script(SILENCE)
    page.reload()
    page.locator("main h1").wait_for()


def notice_silence(page: Page) -> None:
    """Have such a page notice it."""
    page.evaluate("silences.at(-1)()")
