"""Ollama's own client for Python, changed in nothing but its host."""

import asyncio
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import ollama
import pytest

from tests.clients.table import Client
from tests.serving import Server

CLIENT = Client("Ollama", "ollama (Python)", metadata.version("ollama"))
TEXTS = ["first", "", "第三"]


@pytest.fixture
def client(offering: Server) -> Iterator[ollama.Client]:
    """The client as everybody makes it."""
    with ollama.Client(host=offering.url) as made:
        yield made


def test_it_embeds(client: ollama.Client, offering: Server) -> None:
    answer = client.embed(model="minilm:latest", input=TEXTS, keep_alive="5m")

    assert [list(row) for row in answer.embeddings] == offering.embed(*TEXTS)["embeddings"]
    assert answer.prompt_eval_count
    assert answer.total_duration is not None
    assert answer.load_duration is not None
    assert answer.total_duration > answer.load_duration >= 0


def test_it_embeds_asynchronously(offering: Server) -> None:
    async def ask() -> list[list[float]]:
        async with ollama.AsyncClient(host=offering.url) as client:
            answer = await client.embed(model="minilm", input="first")
        return [list(row) for row in answer.embeddings]

    assert asyncio.run(ask()) == offering.embed("first")["embeddings"]


def test_it_embeds_by_the_older_route(client: ollama.Client, offering: Server) -> None:
    answer = client.embeddings(model="minilm", prompt="first")

    assert list(answer.embedding) == offering.embed("first")["embeddings"][0]


def test_it_asks_for_smaller_dimensions(client: ollama.Client, offering: Server) -> None:
    answer = client.embed(model="minilm", input=TEXTS, dimensions=128)

    expected = offering.embed(*TEXTS, dimensions=128)["embeddings"]
    assert np.array(answer.embeddings).tolist() == expected


def test_it_lists_shows_and_says_what_runs(client: ollama.Client, offering: Server) -> None:
    offering.embed("loaded")

    listed = [model.model for model in client.list().models]
    running = {model.name: model for model in client.ps().models}
    shown = client.show("minilm:latest")

    assert "minilm:latest" in listed
    assert (running["minilm:latest"].size or 0) > 50 * 2**20
    assert running["minilm:latest"].expires_at is not None
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo
    assert shown.modelinfo["bert.embedding_length"] == 384


def test_it_loads_a_model_by_asking_for_nothing(client: ollama.Client, offering: Server) -> None:
    offering.http.post("/unload")

    nothing = client.embed(model="all-minilm", input=[])

    assert list(nothing.embeddings) == []
    assert offering.row()["state"] == "ready"


def test_without_an_input_it_sends_an_empty_text(client: ollama.Client, offering: Server) -> None:
    offering.http.post("/unload")

    left_out = client.embed(model="all-minilm")

    assert offering.row()["state"] == "ready"  # which is what it is called for
    assert [list(row) for row in left_out.embeddings] == offering.embed("")["embeddings"]


@pytest.mark.parametrize("name", ["minilm:query", "text-embedding-3-small:latest"])
def test_a_name_with_a_role_is_listed_and_embeds_in_it(
    client: ollama.Client, offering: Server, name: str
) -> None:
    expected = offering.embed("cats", model="minilm", input_type="query")["embeddings"]
    shown = client.show(name)

    answer = client.embed(model=name, input="cats")
    older = client.embeddings(model=name, prompt="cats")

    assert name in [model.model for model in client.list().models]
    assert shown.capabilities == ["embedding"]
    assert [list(row) for row in answer.embeddings] == [list(older.embedding)] == expected
    assert expected != offering.embed("cats")["embeddings"]


@pytest.mark.parametrize("name", ["all-minilm", "all-MiniLM-L6-v2", "minilm"])
def test_it_finds_each_name_in_the_list_and_embeds_with_it(
    client: ollama.Client, offering: Server, name: str
) -> None:
    offering.embed("loaded")

    (listed,) = [model for model in client.list().models if model.model == f"{name}:latest"]
    shown = client.show(str(listed.model))
    answer = client.embed(model=str(listed.model).upper(), input="first")

    assert (listed.size or 0) > 20 * 2**20
    assert listed.modified_at == shown.modified_at
    assert listed.modified_at is not None
    assert listed.modified_at.year > 2000
    assert [list(row) for row in answer.embeddings] == offering.embed("first")["embeddings"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"model": "minlm", "input": "a"}, 404, "not found: No model is called 'minlm'. Did you"),
        ({"model": "minilm", "input": "a", "dimensions": 7}, 400, "It offers 384, 128."),
        (
            {"model": "minilm", "input": "b " * 600, "truncate": False},
            400,
            "the input length exceeds the context length: Text 0 has 602",
        ),
    ],
)
def test_its_errors_say_what_to_do(
    client: ollama.Client, options: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed(**options)

    assert caught.value.status_code == status
    assert words in caught.value.error
