"""Ollama's own client for JavaScript, changed in nothing but its host."""

from typing import Any

import numpy as np
import pytest

from tests.clients import nodejs
from tests.clients.table import Client
from tests.serving import Server

CLIENT = Client("Ollama", "ollama (npm)", nodejs.PINNED["ollama"])
TEXTS = ["first", "", "第三"]


@pytest.fixture(scope="module")
def said(offering: Server) -> dict[str, Any]:
    """What the client made of the answers."""
    nodejs.install()
    offering.http.post("/unload")
    made: dict[str, Any] = nodejs.run("ollama.mjs", offering.url, *TEXTS)
    return made


def bits(rows: list[list[float]]) -> bytes:
    """Return vectors as float32."""
    return np.array(rows, "<f4").tobytes()


def test_it_embeds(said: dict[str, Any], offering: Server) -> None:
    expected = offering.embed(*TEXTS)["embeddings"]

    assert nodejs.installed("ollama") == CLIENT.version
    assert bits(said["plain"]) == bits(expected)
    assert bits([said["older"]]) == bits(offering.embed(TEXTS[0])["embeddings"])
    assert bits(said["role"]) == bits(offering.embed("cats", input_type="query")["embeddings"])
    assert bits(said["small"]) == bits(offering.embed(*TEXTS, dimensions=128)["embeddings"])


def test_it_loads_a_model_by_asking_for_nothing(said: dict[str, Any]) -> None:
    assert said["nothing"] == []
    assert said["running"] == ["minilm:latest"]


def test_it_lists_and_shows_names_with_size_and_time(said: dict[str, Any]) -> None:
    assert said["size"] > 20 * 2**20
    assert said["modified"][0] == said["modified"][1] > "2000"
    assert said["capabilities"] == ["embedding"]


def test_its_errors_have_ollamas_words(said: dict[str, Any]) -> None:
    assert said["unknown"]["status"] == 404
    assert said["unknown"]["words"].startswith("model not found: No model is called 'minlm'")
    assert said["long"]["status"] == 400
    assert said["long"]["words"].startswith("the input length exceeds the context length: ")
