"""Now, as it changes in front of somebody: starts, deaths, pins, unloads, and what is drawn."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from emberd.backends.tiny_bert import tiny_bert
from tests.serving import Server
from tests.web.browsing import (
    LOOKS,
    SLOW_MS,
    Scheme,
    assert_accessible,
    assert_nothing_is_cut,
    opened,
)

LOST = "without-any-files"
LONG = "a-model-whose-name-has-no-end-in-sight-and-is-still-not-cut-anywhere"


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small models; one has a long name, one no files."""
    home = tmp_path_factory.mktemp("now")
    tiny_bert(home / "model")
    tiny = f"{{sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean}}"
    lost = "{sources: [{path: nowhere}], dimensions: 8, pooling: cls}"
    models = f"{{tiny: {tiny}, {LONG}: {tiny}, {LOST}: {lost}}}"
    with Server(home, config=f"default: tiny\nmodels: {models}\n") as running:
        yield running


def test_a_model_starts_serves_dies_and_starts_again_on_screen(
    browser: Browser, now: Server
) -> None:
    now.http.post("/unload")
    with opened(browser, now) as page:
        expect(page.get_by_role("heading", name="No model is loaded")).to_be_visible()

        now.embed("a")

        tiny = page.get_by_role("article", name="tiny", exact=True)
        expect(tiny.locator(".state")).to_have_text("ready")
        expect(tiny).to_contain_text(re.compile(r"Unloads\s*in 14 min \d\d s, unless it is asked"))
        expect(page.locator(".memory span")).to_have_count(1)

        os.kill(now.row("tiny")["pid"], signal.SIGKILL)

        expect(page.get_by_role("heading", name="No model is loaded")).to_be_visible()
        expect(page.locator(".memory span")).to_have_count(0)


def test_its_buttons_load_pin_and_unload(browser: Browser, now: Server) -> None:
    now.http.post("/unload")
    with opened(browser, now) as page:
        page.get_by_text("more models").click()
        page.get_by_label("Filter").fill("in-sight here")
        page.get_by_role("button", name=f"Load {LONG}").click()
        model = page.get_by_role("article", name=LONG)
        expect(model.locator(".state")).to_have_text("ready", timeout=SLOW_MS)

        model.get_by_role("button", name="Pin", exact=True).click()

        expect(model.get_by_role("button", name="Pinned")).to_have_attribute("aria-pressed", "true")
        expect(model).to_contain_text("never: it is pinned")
        expect(model).to_contain_text("until emberd restarts")
        assert now.row(LONG)["pinned"]
        model.get_by_role("button", name="Pinned").click()
        expect(model.get_by_role("button", name="Pin", exact=True)).to_be_visible()
        assert not now.row(LONG)["pinned"]

        model.get_by_role("button", name="Unload").click()

        expect(model).to_have_count(0)
        assert now.row(LONG)["state"] == "cold"


def test_a_start_that_fails_says_why(browser: Browser, now: Server) -> None:
    with opened(browser, now, expects=("503",)) as page:
        now.http.post("/load", json={"model": LOST})

        failed = page.get_by_role("article", name=LOST)
        expect(failed.locator(".state")).to_have_text("failed")
        expect(failed.locator(".notice.bad")).to_contain_text("nowhere")
        assert_accessible(page)


def test_the_charts_draw_what_happened_and_say_it_in_words(browser: Browser, now: Server) -> None:
    with opened(browser, now) as page:
        for _ in range(3):
            now.embed("a", "b", "c", cache=False)
        now.http.post("/unload", json={"model": "tiny"})

        texts = page.get_by_role("img", name=re.compile("^Texts per second: now .* at most [1-9]"))
        expect(texts).to_be_visible()
        drawn = texts.locator("canvas").evaluate(
            """(canvas) => canvas.getContext("2d")
                .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0)"""
        )
        assert drawn
        for title in ("Tokens per second", "Time to answer", "Texts waiting", "Memory by model"):
            expect(page.get_by_role("img", name=re.compile(f"^{title}: "))).to_be_visible()
        memory = page.locator("figure", has=page.get_by_role("heading", name="Memory by model"))
        memory.locator("summary").click()
        expect(memory.locator(".marks li").last).to_contain_text("tiny: somebody asked for it")


def test_models_are_found_by_name_kind_and_whether_they_are_here(
    browser: Browser, now: Server
) -> None:
    with opened(browser, now) as page:
        page.get_by_text("more models").click()
        rows = page.locator("tbody tr")

        page.get_by_label("Filter").fill("rerank")
        expect(rows.first).to_contain_text("rerank")
        kinds = {row.locator("td").first.inner_text() for row in rows.all()}
        assert kinds == {"rerank"}
        page.get_by_label("Filter").fill("none of these")
        expect(page.get_by_role("status").filter(has_text="none of these")).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_busy_view_is_whole_and_readable(
    browser: Browser, now: Server, width: int, scheme: Scheme
) -> None:
    now.embed("a", model=LONG)
    now.embed("a", model="tiny")
    with opened(browser, now, width=width, scheme=scheme) as page:
        page.get_by_text("more models").click()
        expect(page.locator("article .state.ready")).to_have_count(2)
        expect(page.locator("article h3", has_text=LONG)).to_be_visible()

        assert_accessible(page)
        assert_nothing_is_cut(page)
