"""Several servers that are one: order, failures, other spaces. Real servers, real connections."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import emberd
from emberd.client import requests, several
from emberd.errors import (
    ConfigError,
    EmberdError,
    FingerprintMismatchError,
    NoServerError,
    TextTooLongError,
    TooLargeError,
)
from tests.balancers.nodes import Node, Void
from tests.ports import free_port
from tests.serving import wait_for

WORDS = ("a", "bird", "cat", "dog", "eats", "is", "the")
TEXTS = [f"{WORDS[n % 7]} {WORDS[n // 7 % 7]} {WORDS[n // 49 % 7]}" for n in range(700)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two servers of one space; the second takes fewer texts at a time."""
    homes = tmp_path_factory.mktemp("several")
    both = [Node(homes / "one"), Node(homes / "two", max_texts=100)]
    yield both
    for each in both:
        each.stop()


@pytest.fixture(scope="module")
def expected(nodes: list[Node]) -> emberd.Embeddings:
    """What one server alone gives."""
    with emberd.Client(nodes[0].url) as client:
        return client.embed(TEXTS)


def nobody() -> str:
    """Return an address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


def answered(node: Node) -> float:
    """Return how many texts a server has embedded or found."""
    text = node.server.http.get("/metrics").text
    found = [line for line in text.splitlines() if line.startswith("emberd_texts_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_a_large_job_is_divided_and_in_order(
    nodes: list[Node], expected: emberd.Embeddings
) -> None:
    before = [answered(node) for node in nodes]

    with emberd.Client([node.url for node in nodes]) as client:
        got = client.embed(TEXTS, cache=False)

    np.testing.assert_allclose(got.vectors, expected.vectors, atol=1e-5)
    assert (got.model, got.fingerprint) == (expected.model, expected.fingerprint)
    assert got.usage == expected.usage
    assert all(answered(node) > was for node, was in zip(nodes, before, strict=True))


def test_async_is_the_same(nodes: list[Node], expected: emberd.Embeddings) -> None:
    async def ask() -> list[emberd.Embeddings]:
        async with emberd.AsyncClient([node.url for node in nodes]) as client:
            assert (await client.health())["name"] == "tiny"
            return await asyncio.gather(*(client.embed(TEXTS) for _ in range(3)))

    for got in asyncio.run(ask()):
        np.testing.assert_allclose(got.vectors, expected.vectors, atol=1e-5)


def test_places_count_through_all_parts(nodes: list[Node]) -> None:
    texts = ["a cat " * 40 if n % 100 == 7 else "a cat. the dog eats" for n in range(600)]
    with emberd.Client(nodes[0].url) as one, emberd.Client([each.url for each in nodes]) as both:
        assert both.embed(texts).truncated == one.embed(texts).truncated
        assert both.chunk(texts, size=3).chunks == one.chunk(texts, size=3).chunks
        divided = both.embed(texts, chunk={"size": 30})
        whole = one.embed(texts, chunk={"size": 30})

    assert divided.chunks == whole.chunks
    assert len(divided.vectors) == len(whole.vectors) > len(texts)
    np.testing.assert_allclose(divided.vectors, whole.vectors, atol=1e-5)


@pytest.mark.parametrize("dead_first", [True, False])
def test_a_server_that_is_not_there_costs_nothing(
    nodes: list[Node], expected: emberd.Embeddings, dead_first: bool
) -> None:
    urls = [nobody(), nodes[0].url] if dead_first else [nodes[0].url, nobody()]

    with emberd.Client(urls) as client:
        assert client.health()["name"] == "tiny"
        got = client.embed(TEXTS)
        small = client.embed(TEXTS[:2])

    np.testing.assert_allclose(got.vectors, expected.vectors, atol=1e-5)
    assert small.vectors.shape == (2, 64)


def test_a_server_that_says_nothing_costs_its_timeout(
    nodes: list[Node], expected: emberd.Embeddings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with emberd.Client([url, nodes[0].url], timeout=6) as client:  # the other's as well
            got = client.embed(TEXTS)

    np.testing.assert_allclose(got.vectors, expected.vectors, atol=1e-5)


def test_if_nobody_is_there_it_says_so(nodes: list[Node]) -> None:
    del nodes
    with emberd.Client([nobody(), nobody()]) as client, pytest.raises(NoServerError):
        client.embed(TEXTS)


def test_errors_of_the_request_are_those_of_one_server(nodes: list[Node]) -> None:
    urls = [node.url for node in nodes]
    with emberd.Client(urls) as client:
        with pytest.raises(TextTooLongError):
            client.embed([*TEXTS, "cat " * 500], truncate=False)
        with pytest.raises(FingerprintMismatchError):
            client.embed(TEXTS, fingerprint="0" * 16)
        with pytest.raises(TooLargeError):
            client.rerank("a", ["b"] * 3000)
        assert len(client.embed(TEXTS).vectors) == len(TEXTS)
    with pytest.raises(ConfigError, match="is empty"):
        emberd.Client([])
    with pytest.raises(ConfigError, match="is not a URL"):
        emberd.AsyncClient([urls[0], "foo"])


def test_load_and_unload_are_for_every_server(nodes: list[Node]) -> None:
    with emberd.Client([node.url for node in nodes]) as client:
        client.unload()
        assert [node.server.row("tiny")["state"] for node in nodes] == ["cold", "cold"]
        client.load("tiny")
        assert [node.server.row("tiny")["state"] for node in nodes] == ["ready", "ready"]


def test_another_space_is_refused_and_both_servers_are_named(
    nodes: list[Node], tmp_path: Path
) -> None:
    stranger = Node(tmp_path / "other", seed=2)
    try:
        with emberd.Client([nodes[0].url, stranger.url]) as client:
            with pytest.raises(FingerprintMismatchError) as refused:
                client.embed(TEXTS)
            for _ in range(4):  # whichever of them answers, it is the space of the first answer
                try:
                    later = client.embed(["a cat"]).fingerprint
                except FingerprintMismatchError:
                    continue
                assert f"gave {later}" in refused.value.message
        for each in (nodes[0].url, stranger.url, nodes[0].space, stranger.space):
            assert each in refused.value.message
        for wanted in (nodes[0], stranger):
            with emberd.Client([nodes[0].url, stranger.url]) as client:
                got = client.embed(TEXTS, fingerprint=wanted.space)
            assert got.fingerprint == wanted.space
    finally:
        stranger.stop()


def test_a_server_that_is_killed_meanwhile_loses_nothing(
    nodes: list[Node], expected: emberd.Embeddings, tmp_path: Path
) -> None:
    """Counted: of these requests, none fails and none is wrong."""
    second = Node(tmp_path / "second")
    failed: list[EmberdError] = []
    vectors: list[float] = []

    def ask() -> None:
        with emberd.Client([second.url, nodes[0].url]) as client:
            for _ in range(6):
                try:
                    got = client.embed(TEXTS, cache=False)
                except EmberdError as error:
                    failed.append(error)
                else:
                    vectors.append(float(np.abs(got.vectors - expected.vectors).max()))
                begun.set()

    begun = threading.Event()
    askers = [threading.Thread(target=ask) for _ in range(3)]
    for each in askers:
        each.start()
    try:
        assert begun.wait(60)
        second.kill()
        for each in askers:
            each.join()
    finally:
        second.stop()

    assert failed == []
    assert len(vectors) == 18
    assert max(vectors) < 1e-5


def test_a_request_says_how_it_is_divided() -> None:
    request = requests.embed(TEXTS)

    parts = request.divided(256)

    assert [start for start, _ in parts] == [0, 233, 466]
    assert [start for start, _ in request.halves()] == [0, 350]
    assert requests.embed(["a"]).halves() == []
    assert requests.health().divided(1)[0][1].path == "/health"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops what a full queue gets")
def test_a_machine_that_vanished_costs_the_time_to_connect(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "CONNECT_S", 1.0)
    with Void() as void, emberd.Client([void.url, nodes[0].url], timeout=60) as client:
        began_s = time.monotonic()
        assert client.embed(TEXTS).vectors.shape == (700, 64)
        assert time.monotonic() - began_s < 30  # the deadline would be twice as long


def test_what_the_client_got_first_counts_when_that_server_is_dead(tmp_path: Path) -> None:
    both = [Node(tmp_path / "one"), Node(tmp_path / "two")]
    try:
        with emberd.Client([node.url for node in both]) as client:
            client.embed(TEXTS)
            both[0].kill()
            both[1].swap(seed=2)
            for _ in range(3):
                with pytest.raises(FingerprintMismatchError):
                    client.embed(["a cat"])
    finally:
        for each in both:
            each.stop()


def test_a_full_server_costs_nothing(nodes: list[Node], tmp_path: Path) -> None:
    full = Node(tmp_path / "full", max_queued_texts=1)
    try:
        with full.stuck(), emberd.Client([full.url, nodes[0].url]) as client:
            held = threading.Thread(target=full.server.embed, args=("a", "cat"))
            held.start()
            wait_for(lambda: full.has_work)
            got = [len(client.embed(["a cat"]).vectors) for _ in range(4)]
        held.join()
    finally:
        full.stop()

    assert got == [1] * 4
