"""What a server that embeds is asked, how often, and which of its models are unloaded after."""

from collections.abc import Iterator
from typing import Any

import pytest

from emberd.client.clients import Client
from emberd.errors import EmberdError, QueueFullError, SourceError
from emberd.migrate import embedding
from emberd.migrate.embedding import ServerEmbedder
from tests.answering import Answering, answering


def error(status: int, code: str) -> dict[str, tuple[int, Any]]:
    """Return how the native API says that it cannot embed."""
    return {"/embed": (status, {"detail": "It cannot.", "code": code, "hint": None})}


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[ServerEmbedder, Answering]]:
    with (
        answering({}) as server,
        Client(server.url) as client,
        ServerEmbedder(client, ["of others"]) as embedder,
    ):
        yield embedder, server


def test_only_models_that_nobody_else_uses_are_unloaded(
    asked: tuple[ServerEmbedder, Answering],
) -> None:
    embedder, server = asked
    server.answers, server.asked = {"/unload": (200, {"unloaded": ["mine"]})}, []

    embedder.release("of others")
    assert server.asked == []
    embedder.release("mine")
    assert server.asked == ["POST /unload"]
    server.answers = {}  # it has no such path any more, which is no harm
    embedder.release("mine")
    assert server.asked == ["POST /unload"] * 2


@pytest.mark.parametrize(
    ("answer", "raised", "patience_s", "again"),
    [
        (error(503, SourceError.code), SourceError, 60.0, False),
        (error(429, QueueFullError.code), QueueFullError, 0.2, True),
    ],
    ids=["no source", "busy"],
)
def test_a_busy_server_is_asked_again_but_not_for_what_it_cannot_get(
    answer: dict[str, tuple[int, Any]],
    raised: type[EmberdError],
    patience_s: float,
    again: bool,
    asked: tuple[ServerEmbedder, Answering],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding, "PATIENCE_S", patience_s)
    monkeypatch.setattr(embedding, "AGAIN_S", 0.01)
    embedder, server = asked
    server.answers, server.asked = answer, []

    with pytest.raises(raised):
        embedder.submit(["text"], model="m").result()

    assert (len(server.asked) > 1) is again
