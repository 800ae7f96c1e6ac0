"""Every view at both widths and in both colour schemes: whole, readable, and by the keyboard."""

import pytest
from playwright.sync_api import Browser

from tests.serving import Server
from tests.web.browsing import LOOKS, Scheme, assert_accessible, assert_nothing_is_cut, opened

VIEWS = ("now", "try", "trust", "stores", "map", "activity", "connect")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_view_is_whole_and_readable(
    browser: Browser, server: Server, view: str, width: int, scheme: Scheme
) -> None:
    with opened(browser, server, view, width=width, scheme=scheme) as page:
        assert_accessible(page)
        assert_nothing_is_cut(page)


def test_the_keyboard_reaches_every_view(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        reached = set()
        for _ in range(2 + len(VIEWS)):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.getAttribute('href')"))

        assert {f"#/{view}" for view in VIEWS} <= reached
