"""What is found out about a server before it is measured."""

import socket

import pytest

from emberd.bench.client import RefusedError, Server
from emberd.bench.stages import _unloads, detect, local_pid
from tests.answering import answering


def test_a_server_that_embeds_nowhere_is_refused_with_its_answer() -> None:
    with answering({"/v1/embeddings": (400, {"error": "no such model"})}) as other:
        with pytest.raises(RefusedError, match="no such model") as caught:
            detect(other.url, "minilm")
        assert other.asked == ["POST /embed", "POST /v1/embeddings"]

    assert "--model" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("dialect", "health", "unloads"),
    [
        ("native", (200, {"loaded": True}), True),
        ("native", (200, {"status": "ok"}), False),
        ("native", (404, {}), False),
        ("openai", (200, {"loaded": True}), False),
    ],
)
def test_only_a_server_that_says_what_is_loaded_can_unload(
    dialect: str, health: tuple[int, object], unloads: bool
) -> None:
    with answering({"/health": health}) as other:
        assert _unloads(Server("127.0.0.1", other.port, dialect)) is unloads


def test_where_nobody_listens_there_is_no_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    assert local_pid(Server("127.0.0.1", port)) is None
