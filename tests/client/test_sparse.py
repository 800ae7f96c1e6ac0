"""`Client.embed_sparse`, against a real server."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

import emberd
from emberd.errors import BadOptionError, TextTooLongError, WrongKindError, WrongShapeError
from tests.serving import Server
from tests.sparse_models import CONFIG, FAR, dense, reference

TEXTS: list[str] = reference("distilbert")["texts"]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("home"), config=CONFIG) as server:
        yield server


def test_documents_and_queries(sparse: Server) -> None:
    async def ask() -> emberd.SparseEmbeddings:
        async with emberd.AsyncClient(sparse.url) as client:
            return await client.embed_sparse(TEXTS, model="routed", input_type="query")

    with emberd.Client(sparse.url) as client:
        documents = client.embed_sparse(TEXTS, model="routed")
    queries = asyncio.run(ask())

    given = {side: dense(reference("distilbert")[side], 149) for side in ("documents", "queries")}
    for found, expected in ((documents, given["documents"]), (queries, given["queries"])):
        assert (found.model, found.truncated) == ("routed", (5,))
        assert found.usage.tokens > len(TEXTS)
        assert found.cached == 0
        for vector, row in zip(found.vectors, expected, strict=True):
            assert vector.dimensions == 149
            assert vector.indices.dtype == np.int32
            assert vector.values.dtype == np.float32
            assert vector.values == pytest.approx(row[vector.indices], abs=FAR)
            assert len(vector.indices) == (row > 0).sum()
    products = [[one.dot(other) for other in documents.vectors] for one in queries.vectors]
    assert np.array(products) == pytest.approx(given["queries"] @ given["documents"].T, abs=1e-3)


def test_the_default_and_its_space(sparse: Server) -> None:
    with emberd.Client(sparse.url) as client:
        found = client.embed_sparse(TEXTS)
        again = client.embed_sparse(TEXTS, fingerprint=found.fingerprint)
    assert found.model == again.model == "tiny"


def test_errors_are_those_of_the_server(sparse: Server) -> None:
    with emberd.Client(sparse.url) as client:
        with pytest.raises(WrongKindError, match="minilm embeds texts"):
            client.embed_sparse(TEXTS, model="minilm")
        with pytest.raises(BadOptionError, match="JSON") as caught:
            client.embed(TEXTS, model="tiny")
        assert "embed_sparse" in str(caught.value.hint)
        with pytest.raises(TextTooLongError):
            client.embed_sparse(TEXTS, truncate=False)
        with pytest.raises(WrongShapeError):
            client.embed_sparse("one text")
