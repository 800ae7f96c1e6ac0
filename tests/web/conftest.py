"""One browser for the tests of a file.

Not of a process: while Playwright runs, its event loop counts as running, also for other tests.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.atlas.maps import make_home
from tests.serving import Server
from tests.web.browsing import NoBrowserError, launch

expect.set_options(timeout=30_000)  # for a machine with much else to do; what holds is seen at once


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A Chromium without any window."""
    with sync_playwright() as playwright:
        try:
            running = launch(playwright)
        except NoBrowserError as error:
            if request.config.getoption("skip_without_browser"):
                pytest.skip(str(error))
            raise
        yield running
        running.close()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with stores to map."""
    home = tmp_path_factory.mktemp("mapped")
    make_home(home)
    with Server(home) as running:
        yield running
