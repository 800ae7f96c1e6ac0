"""Fetching models from a Hub: by `emberd pull`, and by the first request that needs one."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from emberd.backends.conformance import tiny_bert
from tests.hub import Answer, Hub
from tests.serving import Server, clean_environ, run_emberd, wait_for

CONFIG = "models: {tiny: {sources: [{hf: me/tiny}], dimensions: 64, pooling: mean}}\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with one small model."""
    folder = tmp_path / "repository"
    tiny_bert(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Hub({"me/tiny": files}) as running:
        yield running


@pytest.fixture
def environ(home: Path, hub: Hub) -> dict[str, str]:
    """An environment in which that Hub is the Hub."""
    home.mkdir()
    (home / "config.yaml").write_text(CONFIG)
    return clean_environ(home) | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}


def weights(hub: Hub) -> bytes:
    return hub.files["me/tiny"]["model.safetensors"]


def test_a_pulled_model_needs_the_hub_no_more(
    home: Path, hub: Hub, environ: dict[str, str]
) -> None:
    pulled = run_emberd("pull", "tiny", home=home, environ=environ)
    asked = len(hub.requests)
    embedded = run_emberd("embed", "the cat eats", "--model", "tiny", home=home, environ=environ)

    assert pulled.stdout.startswith(b"tiny: pulled from hf:me/tiny\n")
    assert str(home / "hf" / "hub").encode() in pulled.stdout
    assert json.loads(embedded.stdout)["dimensions"] == 64
    assert len(hub.requests) == asked


def test_a_pull_that_was_killed_goes_on_where_it_was(
    home: Path, hub: Hub, environ: dict[str, str]
) -> None:
    half = len(weights(hub)) // 2
    stuck, release = Event(), Event()

    def half_then_nothing(method: str, path: str) -> Answer | None:
        if method == "GET" and "/resolve/" in path and path.endswith("model.safetensors"):
            if not stuck.is_set():
                stuck.set()
                return Answer(200, weights(hub)[:half], length=len(weights(hub)))
            release.wait(30)
        return None

    hub.answer_instead = half_then_nothing
    pull = subprocess.Popen(
        [sys.executable, "-m", "emberd.cli.main", "pull", "tiny"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ,
    )
    blobs = home / "hf" / "hub" / "models--me--tiny" / "blobs"
    wait_for(lambda: [part for part in blobs.glob("*.part") if part.stat().st_size], within_s=30)
    wait_for(lambda: hub.resumed)  # it asks for the rest, which does not come
    pull.send_signal(signal.SIGKILL)
    pull.wait()
    release.set()
    hub.answer_instead = lambda _method, _path: None
    (there,) = [part.stat().st_size for part in blobs.glob("*.part")]
    hub.resumed.clear()

    done = run_emberd("pull", "tiny", home=home, environ=environ)

    assert done.returncode == 0, done.stderr
    assert hub.resumed == [there]
    assert list(blobs.glob("*.part")) == []


def test_the_first_request_downloads_and_everybody_can_see_how_far(
    home: Path, hub: Hub, environ: dict[str, str]
) -> None:
    half = len(weights(hub)) // 2
    began, release = Event(), Event()

    def in_two_parts(method: str, path: str) -> Answer | None:
        if method == "GET" and "/resolve/" in path and path.endswith("model.safetensors"):
            if not began.is_set():
                began.set()
                return Answer(200, weights(hub)[:half], length=len(weights(hub)))
            release.wait(30)
        return None

    hub.answer_instead = in_two_parts
    with Server(home, environ=environ) as own, ThreadPoolExecutor(1) as thread:
        first = thread.submit(own.embed, "the cat eats", model="tiny")
        wait_for(lambda: (own.row("tiny")["progress"] or {}).get("done"), within_s=30)
        progress = own.row("tiny")["progress"]
        (listed,) = json.loads(own.run("ps", "--json").stdout)["models"]
        table = own.run("ps").stdout.decode()
        release.set()

        assert first.result()["model"] == "tiny"
        assert progress["phase"] == "download"
        assert 0 < progress["done"] < progress["total"]
        assert listed["progress"]["phase"] == "download"
        assert "download" in table
        assert own.row("tiny")["progress"] is None
        assert own.row("tiny")["pulled"] is True
