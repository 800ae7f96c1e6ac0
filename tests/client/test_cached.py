"""`cached` in the client's answers, of a server that keeps vectors."""

import asyncio
from collections.abc import Iterator

import pytest

import emberd
from emberd.backends.tiny_bert import tiny_bert
from tests.serving import Server, wait_for


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("kept")
    tiny_bert(home / "model")
    entry = f"{{sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean}}"
    config = f"default: tiny\ncache: {{vectors: 32MiB}}\nmodels: {{tiny: {entry}}}\n"
    with Server(home, config=config) as running:
        yield running


def test_vectors_that_were_found_are_counted(own: Server) -> None:
    async def ask() -> emberd.Embeddings:
        async with emberd.AsyncClient(own.url) as client:
            return await client.embed(["one", "new", "two"])

    with emberd.Client(own.url) as client:
        first = client.embed(["one", "two"])
        wait_for(lambda: client.embed(["one", "two"]).cached == 2)  # kept once it was answered
        anew = client.embed(["one", "two"], cache=False)
        chunks = client.embed(["one", "a third"], chunk={})

    assert [each.cached for each in (first, anew, chunks)] == [0, 0, 1]
    assert asyncio.run(ask()).cached == 2
