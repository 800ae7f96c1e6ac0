"""OpenAI's own SDK for Node, changed in nothing but its baseURL."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients import nodejs
from tests.clients.busy import full_queue
from tests.clients.table import Client
from tests.serving import Server, wait_for

CLIENT = Client("OpenAI", "openai (npm)", nodejs.PINNED["openai"])
TEXTS = ["first", "", "第三"]


@pytest.fixture(scope="module")
def said(offering: Server) -> dict[str, Any]:
    """What the SDK made of the answers."""
    nodejs.install()
    made: dict[str, Any] = nodejs.run("openai.mjs", offering.url, *TEXTS)
    return made


def bits(rows: list[list[float]]) -> bytes:
    """Return vectors as float32."""
    return np.array(rows, "<f4").tobytes()


def test_the_version_is_the_pinned_one(said: dict[str, Any]) -> None:
    assert said
    assert nodejs.installed("openai") == CLIENT.version


def test_it_embeds(said: dict[str, Any], offering: Server) -> None:
    expected = bits(offering.embed(*TEXTS)["embeddings"])

    assert bits(said["plain"]) == bits(said["float"]) == expected
    assert bits(said["small"]) == bits(offering.embed(*TEXTS, dimensions=128)["embeddings"])
    assert bits(said["role"]) == bits(offering.embed("cats", input_type="query")["embeddings"])
    assert said["many"] == 2048


def test_it_lists_and_finds_models(said: dict[str, Any]) -> None:
    assert said["models"][0] == "minilm"
    assert said["model"] in said["models"]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("unknown", ("NotFoundError", 404, "unknown_model", "model")),
        ("empty", ("BadRequestError", 400, "no_texts", None)),
        ("ids", ("BadRequestError", 400, "token_ids", "input")),
    ],
)
def test_its_typed_errors_say_code_and_param(
    said: dict[str, Any], asked: str, error: tuple[str, int, str, str | None]
) -> None:
    assert tuple(said[asked][key] for key in ("type", "status", "code", "param")) == error


def test_it_tries_again_when_the_queue_was_full(home: Path) -> None:
    nodejs.install()
    with full_queue(home) as (server, get_on), nodejs.start("retry.mjs", server.url) as process:
        assert process.stdout
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGSTOP)  # it would try again after a second
        try:
            get_on()
            wait_for(lambda: not server.row()["in_flight"])
        finally:
            process.send_signal(signal.SIGCONT)
        rest = [json.loads(line) for line in process.stdout]

    assert first == 429
    assert [said for said in rest if said != 429] == [200, 384]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "app://obsidian.md"])
def test_it_works_in_a_page_that_is_allowed(offering: Server, origin: str) -> None:
    nodejs.install()

    said = nodejs.run("browser.mjs", offering.url, origin)

    answer = offering.embed("first")
    assert bits([said["vector"]]) == bits(answer["embeddings"])
    assert said["fingerprint"] == answer["fingerprint"]
    assert said["request_id"]
    assert {"authorization", "content-type", "dangerously-allow-browser"} <= set(said["asked"])
    assert any(name.startswith("x-stainless-") for name in said["asked"])


def test_it_does_not_in_a_page_that_is_not(offering: Server) -> None:
    nodejs.install()

    said = nodejs.run("browser.mjs", offering.url, "http://localhost:3001")

    assert "refused: 403" in said["error"]
