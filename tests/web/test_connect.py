"""Connect: what it says to type works as it is, and shows no token unless somebody asks for it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serving import Server
from tests.web.browsing import LOOKS, Scheme, assert_accessible, assert_nothing_is_cut, opened

TOKEN = "of-the-environment-42"  # noqa: S105
RUNS = ("openai-python", "ollama-python", "cohere", "tei", "python")


@contextmanager
def unlocked(browser: Browser, server: Server, token: str) -> Iterator[Page]:
    """Open the view, and give the token if there is one."""
    with opened(browser, server, "connect", expects=("401",)) as page:
        if token:
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Use it").click()
        page.locator(".clients").wait_for()
        yield page


def snippet(page: Page, client: str) -> str:
    """Return what the page says to type into a client."""
    page.locator(f'a[href="#/connect/{client}"]').click()
    expect(page.locator(f'a[href="#/connect/{client}"]')).to_have_attribute("aria-current", "true")
    return page.locator(".clients .command code").inner_text()


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "with a token"])
def test_what_it_says_runs_as_it_is(
    browser: Browser, home: Path, tmp_path: Path, token: str
) -> None:
    environ = {"EMBERD_TOKEN": token} if token else {}
    with Server(home, environ=environ) as server, unlocked(browser, server, token) as page:
        if token:
            page.get_by_label("Show my token").check()
        for client in RUNS:
            code = f"{snippet(page, client)}\nprint('it ran')"
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
            )  # fmt: skip
            assert done.stdout == "it ran\n", (client, code, done.stderr)
        done = subprocess.run(
            ["/bin/sh", "-c", snippet(page, "curl")], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith('{"embeddings":')


def test_a_token_is_shown_only_when_somebody_asks(browser: Browser, home: Path) -> None:
    with (
        Server(home, environ={"EMBERD_TOKEN": TOKEN}) as guarded,
        unlocked(browser, guarded, TOKEN) as page,
    ):
        for client in ("curl", "openai-python", "continue"):
            assert "YOUR_TOKEN" in snippet(page, client)
        assert TOKEN not in page.content()

        page.get_by_label("Show my token").check()

        assert TOKEN in snippet(page, "curl")


def test_it_names_the_chosen_model_and_its_roles(browser: Browser, server: Server) -> None:
    with opened(browser, server, "connect") as page:
        page.get_by_label("Model").select_option("bge-small")

        assert '"bge-small"' in snippet(page, "openai-js")
        expect(page.get_by_text("The first request will download bge-small")).to_be_visible()
        expect(page.locator("#roles ~ dl")).to_contain_text("bge-small:query")


def test_a_re_ranker_has_snippets_of_its_own(browser: Browser, server: Server) -> None:
    with opened(browser, server, "connect") as page:
        page.get_by_label("Model").select_option("ms-marco-minilm")

        assert "/v1/rerank" in snippet(page, "curl")
        expect(page.locator('a[href="#/connect/openai-python"]')).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_snippet_is_whole_and_readable(
    browser: Browser, server: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, server, "connect", width=width, scheme=scheme) as page:
        clients = page.locator(".clients nav a")
        expect(clients.nth(11)).to_be_attached()
        for client in clients.all():
            client.click()
            expect(page.locator("#client")).to_have_text(client.inner_text())
            assert_nothing_is_cut(page)
        assert_accessible(page)
