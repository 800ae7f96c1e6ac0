"""What a server that embeds is asked, how often, and which of its models are unloaded after."""

from collections.abc import Iterator
from typing import Any

import pytest

from emberd.client.clients import Client
from emberd.errors import QueueFullError, SourceError
from emberd.migrate import embedding
from emberd.migrate.embedding import ServerEmbedder
from tests.answering import Answering, answering


def error(status: int, code: str) -> tuple[int, Any]:
    """Return how the native API says that it cannot embed."""
    return status, {"detail": "It cannot.", "code": code, "hint": None}


BUSY = error(429, QueueFullError.code)
NO_SOURCE = error(503, SourceError.code)


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


class InTurn(dict[str, Any]):
    """Answers that are given one after another."""

    def get(self, path: str, default: object = None) -> Any:  # noqa: ANN401 - as a dict does
        """Return the next answer."""
        del default
        return self[path].pop(0)


def test_a_busy_server_is_asked_again_until_it_says_that_it_cannot(
    asked: tuple[ServerEmbedder, Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "AGAIN_S", 0.01)
    embedder, server = asked
    server.answers, server.asked = InTurn({"/embed": [BUSY, BUSY, NO_SOURCE]}), []

    with pytest.raises(SourceError):
        embedder.submit(["text"], model="m").result()

    assert server.asked == ["POST /embed"] * 3


def test_patience_has_an_end(
    asked: tuple[ServerEmbedder, Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PATIENCE_S", 0.0)
    embedder, server = asked
    server.answers, server.asked = {"/embed": BUSY}, []

    with pytest.raises(QueueFullError):
        embedder.submit(["text"], model="m").result()

    assert server.asked == ["POST /embed"]
