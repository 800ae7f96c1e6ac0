"""One browser for the tests of a process."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.web.browsing import launch


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without any window."""
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()
