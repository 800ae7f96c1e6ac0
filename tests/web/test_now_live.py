"""Now, while something goes on: a download, a start, a queue, a check, memory beyond the budget."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from emberd.backends.tiny_bert import tiny_bert
from tests.faults.troubled import loading_held, serve_troubled
from tests.hub import Answer, Hub
from tests.serving import Server, wait_for
from tests.web.browsing import SLOW_MS, assert_accessible, opened
from tests.web.pixels import colour

AMOUNT = re.compile(r"[\d.]+ [KM]iB of [\d.]+ [KM]iB")
COLUMNS = """(canvas, [red, green, blue]) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const near = (at) => data[at + 3] > 60 && Math.abs(data[at] - red) < 16
    && Math.abs(data[at + 1] - green) < 16 && Math.abs(data[at + 2] - blue) < 16;
  const columns = new Set();
  for (let x = 0; x < width; x++) {
    let count = 0;
    for (let y = 0; y < height; y++) count += near(4 * (y * width + x));
    if (count > height / 4) columns.add(x);
  }
  return [...columns].map((x) => x / width);
}"""


class SlowHub(Hub):
    """A Hub that sends the first half of weights, and the rest once it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__({"me/tiny": {path.name: path.read_bytes() for path in folder.iterdir()}})
        self.go_on = Event()
        self.answer_instead = self._slowly

    def _slowly(self, _method: str, path: str) -> Answer | None:
        if not path.endswith(".safetensors"):
            return None
        answer = self.true_answer(path)
        assert isinstance(answer.body, bytes)
        return replace(answer, body=self._halves(answer.body), length=len(answer.body))

    def _halves(self, content: bytes) -> Iterator[bytes]:
        middle = len(content) // 2
        yield content[:1000]
        time.sleep(0.5)  # a command says how far it is only now and then
        yield content[1000:middle]
        self.go_on.wait(60)
        self.go_on.clear()
        yield content[middle:]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, SlowHub]]:
    """A server with a model of its own and one on a slow Hub."""
    home = tmp_path_factory.mktemp("live")
    tiny_bert(home / "model")
    about = "dimensions: 64, pooling: mean"
    models = (
        f"{{tiny: {{sources: [{{path: {home / 'model'}}}], {about}, backend: troubled}},"
        f" fetched: {{sources: [{{hf: me/tiny}}], {about}, backend: troubled}}}}"
    )
    config = f"default: tiny\nmodels: {models}\n"
    with (
        SlowHub(home / "model") as hub,
        serve_troubled(home, config=config, environ=hub.variables) as one,
    ):
        yield one, hub


def forget(server: Server) -> None:
    """Delete what was downloaded."""
    server.http.post("/unload")
    shutil.rmtree(server.home / "hf" / "hub", ignore_errors=True)


def assert_half(bar: Locator) -> None:
    """Say that a bar shows a part of what it is about."""
    expect(bar).to_have_attribute("value", re.compile(r"[1-9]"))
    assert 0.2 < bar.evaluate("(bar) => bar.value / bar.max") < 0.9


@contextmanager
def embedding(server: Server, *bodies: Mapping[str, object]) -> Iterator[None]:
    """Ask for vectors meanwhile; at the end, there is a good answer to each question."""
    with ThreadPoolExecutor(len(bodies)) as threads:
        asked = [threads.submit(server.http.post, "/embed", json=body) for body in bodies]
        yield
        for each in asked:
            assert each.result(60).status_code == 200, each.result().text


def card(page: Page, name: str) -> Locator:
    """Return what the view says of a model that is not cold."""
    return page.get_by_role("article", name=name, exact=True)


def test_a_pull_shows_its_bytes_wherever_it_was_begun(
    browser: Browser, slow: tuple[Server, SlowHub]
) -> None:
    server, hub = slow
    forget(server)
    with opened(browser, server) as page:
        page.get_by_text("more models").click()
        page.get_by_label("Filter").fill("fetched")
        row = page.locator("tbody tr").first
        for view, within in (("now", row), ("trust", page.locator("#trust-fetched"))):
            if view == "trust":
                forget(server)
                page.goto(f"{server.url}/ui/#/trust/fetched")
            within.get_by_role("button", name="Pull", exact=True).click()
            page.get_by_role("dialog").get_by_role("button", name="Pull").click()

            expect(within.get_by_text(AMOUNT)).to_be_visible(timeout=SLOW_MS)
            expect(within.get_by_text("Downloading fetched …")).to_be_visible()
            assert_half(within.get_by_role("progressbar", name="Downloading fetched"))
            assert_accessible(page)
            hub.go_on.set()
            expect(within.get_by_text("Pulled from hf:me/tiny")).to_be_visible(timeout=SLOW_MS)
            expect(within.get_by_role("progressbar")).to_have_count(0)
    assert server.row("fetched")["pulled"]


def test_the_phases_of_a_start_are_shown_as_they_come(
    browser: Browser, slow: tuple[Server, SlowHub]
) -> None:
    server, hub = slow
    forget(server)
    with opened(browser, server) as page:
        model = card(page, "fetched")
        with embedding(server, {"model": "fetched", "texts": ["a"]}), loading_held(server):
            expect(model.locator(".state")).to_have_text("starting")
            expect(model.get_by_text("Downloading its files, ")).to_be_visible(timeout=SLOW_MS)
            expect(model.get_by_text(AMOUNT)).to_be_visible()
            assert_half(model.get_by_role("progressbar"))
            hub.go_on.set()
            expect(model.get_by_text("Loading it;")).to_be_visible(timeout=SLOW_MS)
            expect(model.get_by_text(AMOUNT)).to_have_count(0)

        expect(model.locator(".state")).to_have_text("ready", timeout=SLOW_MS)
        expect(model.get_by_role("progressbar")).to_have_count(0)
        model.get_by_text("Started in").locator("..").locator("summary").click()
        phases = [*server.row("fetched")["phases_s"]]
        expect(model.locator(".phases li span:first-child")).to_have_text(phases)
    assert {"files", "load"} <= {*phases}


@pytest.mark.slow
def test_a_model_is_verified_and_its_result_stays_beside_it(
    browser: Browser, slow: tuple[Server, SlowHub]
) -> None:
    server, _ = slow
    server.embed("a")
    with opened(browser, server) as page:
        model = card(page, "tiny")
        with loading_held(server):
            model.get_by_role("button", name="Verify").click()
            expect(model.get_by_role("button", name="Verify")).to_be_disabled()
            expect(model.get_by_text("checks so far")).to_be_visible(timeout=SLOW_MS)

        result = model.get_by_text(re.compile("All is well|No check failed"))
        expect(result).to_be_visible(timeout=SLOW_MS)
        expect(model.get_by_role("button", name="Verify")).to_be_enabled()
        files = model.get_by_role("row").filter(has=page.get_by_text("files", exact=True))
        if not files.is_visible():
            result.click()
        expect(files.locator(".state")).to_have_text("ok")


def test_a_queue_is_seen_in_numbers_and_in_the_chart(
    browser: Browser, slow: tuple[Server, SlowHub]
) -> None:
    server, _ = slow
    server.http.post("/unload")
    body = {"texts": [f"the vector {number}" for number in range(50)]}
    with opened(browser, server) as page:
        held = ExitStack()
        held.enter_context(loading_held(server))  # before they ask, and no longer than they wait
        with embedding(server, *[body] * 3), held:
            expect(card(page, "tiny")).to_contain_text("0 at work, 3 waiting")
            expect(page.get_by_text("3 requests under way")).to_be_visible()
            chart = page.get_by_role(
                "img", name=re.compile(r"^Texts waiting: now 150, at most 150")
            )
            expect(chart).to_be_visible()
        expect(card(page, "tiny")).to_contain_text("0 at work, 0 waiting", timeout=SLOW_MS)
        later = re.compile("^Texts waiting: now 0, at most 150")
        expect(page.get_by_role("img", name=later)).to_be_visible()


def test_memory_beyond_the_budget_is_said(browser: Browser, slow: tuple[Server, SlowHub]) -> None:
    server, _ = slow
    file = server.home / "config.yaml"
    before = file.read_text()
    server.embed("a")
    server.http.post("/pin", json={"model": "tiny", "pinned": True})
    try:
        with opened(browser, server) as page:
            memory = page.get_by_role("region", name="Memory", exact=True)
            expect(memory).to_contain_text("of 4.0 GiB for models")
            expect(memory.locator(".notice")).to_have_count(0)

            file.write_text(f"{before}limits: {{memory_budget: 8MiB}}\n")  # the pinned one stays

            expect(memory).to_contain_text("of 8.0 MiB for models", timeout=SLOW_MS)
            warning = memory.locator(".notice.warn")
            expect(warning).to_contain_text("more than the budget", timeout=SLOW_MS)
            bar = memory.locator(".memory")
            whole, part = (each.bounding_box() for each in (bar, bar.locator("span").first))
            assert whole
            assert part
            assert part["width"] <= whole["width"]
            assert_accessible(page)
            file.write_text(before)
            expect(memory.locator(".notice")).to_have_count(0, timeout=SLOW_MS)
    finally:
        file.write_text(before)
        server.http.post("/pin", json={"model": "tiny", "pinned": False})


def test_an_unload_is_marked_in_the_chart_of_memory_alone(
    browser: Browser, slow: tuple[Server, SlowHub]
) -> None:
    server, _ = slow
    with opened(browser, server, expects=("willReadFrequently",)) as page:
        server.embed("a")
        chart = page.get_by_role("img", name=re.compile("^Memory by model: .*tiny now [1-9]"))
        expect(chart).to_be_visible()
        canvas = page.get_by_role("img", name=re.compile("^Memory by model: ")).locator("canvas")
        accent = colour(canvas, "--accent")
        before: list[float] = canvas.evaluate(COLUMNS, accent)

        server.http.post("/unload", json={"model": "tiny"})

        def marks() -> list[float]:
            seen: list[float] = canvas.evaluate(COLUMNS, accent)
            return seen if len(seen) > len(before) else []

        seen = wait_for(marks)
        texts = page.get_by_role("img", name=re.compile("^Texts per second: "))
        assert texts.locator("canvas").evaluate(COLUMNS, accent) == []
    assert max(seen) > 0.9  # the newest second is at the right edge


def test_a_killed_worker_is_seen_by_who_waits_for_it(
    browser: Browser, slow: tuple[Server, SlowHub]
) -> None:
    server, _ = slow
    server.embed("a")
    pid = server.row("tiny")["pid"]
    with opened(browser, server, "try") as page:
        os.kill(pid, signal.SIGSTOP)
        page.get_by_label("Texts", exact=True).fill("the hat\nthe vector")
        page.get_by_label("Model", exact=True).select_option("tiny")
        page.get_by_role("button", name="Compare").click()
        under_way = page.get_by_label("Under way")
        expect(under_way).to_contain_text("tiny computes")

        with loading_held(server):
            os.kill(pid, signal.SIGKILL)
            restarts = re.compile(r"tiny (starts|is about to start)")
            expect(under_way.get_by_text(restarts)).to_be_visible(timeout=SLOW_MS)
        page.get_by_role("table", name="Cosines of all pairs by tiny").wait_for(timeout=SLOW_MS)
