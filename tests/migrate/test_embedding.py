"""Who embeds: what a server's limits change, and how many batches wait at once."""

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import psutil
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.client.answers import Embeddings
from emberd.client.clients import Client
from emberd.config.load import load_config
from emberd.errors import NoServerError, TooLargeError
from emberd.migrate.embedding import Embedded, PoolEmbedder, ServerEmbedder
from emberd.migrate.turns import IN_FLIGHT, in_turn
from tests.cosines import cosines
from tests.migrate import stores
from tests.pool.two_devices import CONFIG, install
from tests.serving import Server, clean_environ, has_ended, wait_for


class Limited(Client):
    """A server that takes 9 texts in a request, of 9 characters; a vector is its text's number."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked: list[tuple[int, str | None]] = []
        self.unloaded: list[str | None] = []

    def embed(  # type: ignore[override]
        self, texts: Sequence[str], *, model: str, fingerprint: str | None = None
    ) -> Embeddings:
        """Give each text's number."""
        self.asked.append((len(texts), fingerprint))
        if len(texts) > 9 or max(map(len, texts)) > 9:
            raise TooLargeError("Too many texts.")
        vectors = np.array([[float(text)] for text in texts], np.float32)
        return Embeddings(vectors, model=model, fingerprint="its space")

    def unload(self, model: str | None = None) -> list[str]:
        """Remember it, and fail."""
        self.unloaded.append(model)
        raise NoServerError("It has ended.")


def test_a_server_unloads_only_what_was_not_loaded_before() -> None:
    with Limited() as client, ServerEmbedder(client, loaded=["a"]) as embedder:
        embedder.release("a")
        embedder.release("b")  # whether it can or not

    assert client.unloaded == ["b"]


def test_a_pool_of_our_own_unloads_what_is_released(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(stores.MODELS)
    before = {*psutil.Process().children()}
    with PoolEmbedder(load_config(environ=clean_environ(home))) as embedder:
        embedder.submit(["text"], model="old").result()
        (worker,) = {*psutil.Process().children()} - before
        embedder.release("old")

        wait_for(lambda: has_ended(worker))


def test_a_batch_that_is_too_large_is_halved_until_it_is_not() -> None:
    with Limited() as client, ServerEmbedder(client) as embedder:
        done = embedder.submit([str(at) for at in range(20)], model="a").result()

    assert done.vectors[:, 0].tolist() == list(range(20))
    assert done.fingerprint == "its space"
    assert client.asked == [
        (20, None), (10, None), (5, None), (5, "its space"),
        (10, "its space"), (5, "its space"), (5, "its space"),
    ]  # fmt: skip


def test_a_single_text_that_is_too_large_is_an_error() -> None:
    with (
        Limited() as client,
        ServerEmbedder(client) as embedder,
        pytest.raises(TooLargeError),
    ):
        embedder.submit(["1", "0000000002"], model="a").result()

    assert [texts for texts, _ in client.asked] == [2, 1, 1]


@pytest.mark.slow
def test_a_batch_over_a_servers_limit_is_halved_and_joined(home: Path) -> None:
    texts = stores.texts(40)
    with Server(home, config="limits: {max_texts: 9}") as own:
        with Client(own.url) as client, ServerEmbedder(client) as embedder:
            together = embedder.submit(texts, model="minilm").result()
        alone = [own.embed(text)["embeddings"][0] for text in texts]

    assert cosines(together.vectors, np.array(alone, np.float32)).min() > 0.9999


@pytest.mark.slow
def test_a_single_text_over_the_limit_is_an_error(home: Path) -> None:
    with (
        Server(home, config="limits: {max_body: 2000}") as own,
        Client(own.url) as client,
        ServerEmbedder(client) as embedder,
        pytest.raises(TooLargeError),
    ):
        embedder.submit(["word " * 800, "short"], model="minilm").result()


def test_no_more_than_a_few_batches_wait_and_their_order_stays() -> None:
    waiting: list[Future[Embedded]] = []
    most = 0

    def ask(batch: Sequence[int]) -> "Future[Embedded]":
        nonlocal most
        future: Future[Embedded] = Future()
        future.set_result(Embedded(np.array([batch], np.float32), "f"))
        waiting.append(future)
        most = max(most, len(waiting))
        return future

    seen = []
    for batch, answer in in_turn(([at] for at in range(20)), ask):
        waiting.pop(0)
        seen.append((batch[0], int(answer.vectors[0, 0])))

    assert seen == [(at, at) for at in range(20)]
    assert most <= IN_FLIGHT + 1


def test_more_batches_are_under_way_once_there_are_more_workers_and_fewer_after_that() -> None:
    asked: list[int] = []
    at_once = [2]

    def ask(batch: int) -> "Future[Embedded]":
        asked.append(batch)
        future: Future[Embedded] = Future()
        future.set_result(Embedded(np.empty((0, 1), np.float32), "f"))
        return future

    under_way = []
    for batch, _ in in_turn(range(20), ask, lambda: at_once[-1]):
        under_way.append(len(asked) - 1 - batch)
        at_once.append(6 if batch < 8 else 1)

    assert under_way[:4] == [2, 6, 6, 6]
    assert under_way[10:14] == [4, 3, 2, 1]
    assert asked == [*range(20)]


def test_as_many_batches_are_under_way_as_the_workers_of_a_model_can_take(home: Path) -> None:
    tiny_bert(home / "tiny")
    config = CONFIG.format(folder=home / "tiny", replicas="auto")
    with (
        Server(home, config=config, environ=install(home / "plugins")) as own,
        Client(own.url) as client,
        ServerEmbedder(client) as embedder,
    ):
        assert embedder.at_once == IN_FLIGHT

        def asked_again() -> bool:
            embedder.submit(["text"], model="tiny").result()
            return embedder.at_once == 2 * IN_FLIGHT

        wait_for(asked_again)


def test_a_pool_of_our_own_counts_its_workers_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bert(home / "tiny")
    (home / "config.yaml").write_text(CONFIG.format(folder=home / "tiny", replicas="auto"))
    for name, value in install(home / "plugins").items():
        monkeypatch.setenv(name, value)  # of its workers
    monkeypatch.syspath_prepend(home / "plugins")
    with PoolEmbedder(load_config(environ=clean_environ(home))) as embedder:

        def asked_again() -> bool:
            embedder.submit(["text"], model="tiny").result()
            return embedder.at_once == 2 * IN_FLIGHT

        wait_for(asked_again)
