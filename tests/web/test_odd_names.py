"""Command lines on the page, typed into a shell: names with quotes, a config file elsewhere."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from playwright.sync_api import Browser, expect

from tests import jobs
from tests.migrate import stores
from tests.serving import Server, clean_environ
from tests.web.browsing import opened

ODD = 'it\'s "mine" & $HOME; `more`'
DASHED = "--sample=all"
FILE = "my co'nfig.yaml"
SLOW_MS = 90_000
ROWS = 40


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose config file is elsewhere, with stores that have odd names."""
    home = tmp_path_factory.mktemp("odd")
    vectors = np.random.default_rng(1).normal(size=(ROWS, 64)).astype(np.float32)
    named = {}
    for name, file in ((ODD, "notes.db"), (DASHED, "letters.db")):
        jobs.make_store(home / file, stores.texts(ROWS), vectors)
        named[name] = {"path": file, "options": {"text": "notes.body"}}
    (home / FILE).write_text(f"default: old\n{stores.MODELS}stores: {json.dumps(named)}\n")
    with Server(home, arguments=("--port", "0", "--config", str(home / FILE))) as running:
        yield running


def typed(line: str, server: Server, *more: str) -> subprocess.CompletedProcess[str]:
    """Have a shell run a line, in a folder of its own."""
    folder = server.home / "elsewhere"
    folder.mkdir(exist_ok=True)
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/sh", "-c", shlex.join(["eval", " ".join([line, *more])])],
        cwd=folder, env=clean_environ(server.home) | path, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def lines_of(browser: Browser, server: Server, store: str) -> tuple[str, dict[str, Any]]:
    """Plan a migration on the page; return the line of the one that it offers, and the plan."""
    with opened(browser, server, "stores") as page:
        card = page.get_by_role("region", name=store, exact=True)
        card.get_by_label("Move to").select_option("new")
        card.get_by_role("button", name="Plan", exact=True).click()
        card.get_by_role("button", name="Migrate").click(timeout=SLOW_MS)
        line = page.get_by_role("dialog").locator(".command code").inner_text()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    plans = (row for row in server.http.get("/jobs").json()["jobs"] if row["kind"] == "plan")
    (plan,) = (row for row in plans if row["subject"] == store)
    return line, plan


def test_the_line_of_a_job_and_that_of_the_page_are_one_and_work(
    browser: Browser, odd: Server
) -> None:
    start = ["emberd", "--config", str(odd.home / FILE)]
    line, plan = lines_of(browser, odd, ODD)
    there = typed(plan["line"], odd, "--json")

    assert shlex.split(line) == [*start, "migrate", "run", ODD, "--to", "new", "--yes"]
    assert shlex.split(plan["line"]) == [*start, "migrate", "run", ODD, "--to", "new", "--dry-run"]
    assert plan["line"].removesuffix("--dry-run") == line.removesuffix("--yes")
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["status"] == plan["result"]["status"] == "planned"


def test_a_name_that_looks_like_an_option_is_none(browser: Browser, odd: Server) -> None:
    line, plan = lines_of(browser, odd, DASHED)

    assert shlex.split(line)[5:] == ["--to", "new", "--yes", "--", DASHED]
    assert plan["line"].replace("--dry-run", "--yes") == line
    assert typed(plan["line"], odd).returncode == 0


def test_the_line_that_exports_a_map_writes_its_rows(browser: Browser, odd: Server) -> None:
    with opened(browser, odd, "map") as page:
        expect(page.get_by_label("Store")).to_have_value(ODD)
        section = page.get_by_role("region", name="Take it along")
        line = section.locator(".command code").inner_text(timeout=SLOW_MS)
        expect(section).to_contain_text("Embedding Atlas")
    done = typed(line, odd)
    places = odd.http.get("/map/points", params={"store": ODD}).content[: 8 * ROWS]

    assert done.returncode == 0, done.stderr
    assert shlex.split(line)[3:5] == ["map", ODD]
    table = pyarrow.parquet.read_table(odd.home / "elsewhere" / "map.parquet")
    assert {"key", "text", "vector", "x", "y", "model"} <= {*table.column_names}
    assert table["text"].to_pylist() == stores.texts(ROWS)
    written = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    assert np.allclose(written, np.frombuffer(places, "<f4").reshape(-1, 2), atol=1e-4)
