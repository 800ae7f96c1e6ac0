"""`Client.rerank`, against a real server."""

import asyncio
from collections.abc import Iterator

import pytest

import emberd
from emberd.errors import TextTooLongError, WrongKindError, WrongShapeError
from tests.rerankers import CONFIG, LOGITS, LONG, ORDER, QUERY, TEXTS, sigmoid
from tests.serving import Server


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("home"), config=CONFIG) as server:
        yield server


def test_texts_come_in_the_order_of_their_relevance(reranker: Server) -> None:
    async def ask() -> emberd.Ranking:
        async with emberd.AsyncClient(reranker.url) as client:
            return await client.rerank(QUERY, TEXTS)

    with emberd.Client(reranker.url) as client:
        answer = client.rerank(QUERY, TEXTS)
        best = client.rerank(QUERY, TEXTS, model="tiny", top_n=2)

    assert [each.index for each in answer.results] == ORDER
    expected = [LOGITS[index] for index in ORDER]
    assert [each.logit for each in answer.results] == pytest.approx(expected, abs=1e-4)
    scores = [each.score for each in answer.results]
    assert scores == pytest.approx([sigmoid(logit) for logit in expected], abs=1e-4)
    assert (answer.model, answer.truncated) == ("tiny", (LONG,))
    assert answer.usage.tokens > len(TEXTS)
    assert best.results == answer.results[:2]
    assert asyncio.run(ask()) == answer


def test_errors_are_those_of_the_server(reranker: Server) -> None:
    with emberd.Client(reranker.url) as client:
        with pytest.raises(WrongShapeError, match="not a list"):
            client.rerank(QUERY, "a text")
        with pytest.raises(WrongShapeError, match=r"documents\.1: .*surrogate"):
            client.rerank(QUERY, ["ok", "\ud83d"])
        with pytest.raises(TextTooLongError):
            client.rerank(QUERY, TEXTS, truncate=False)
        with pytest.raises(WrongKindError) as wrong:
            client.rerank(QUERY, TEXTS, model="minilm")
        assert "tiny" in str(wrong.value.hint)
