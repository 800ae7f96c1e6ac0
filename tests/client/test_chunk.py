"""`Client.chunk` and `Client.embed(chunk=...)`, against a real server."""

import asyncio

import numpy as np
import pytest

import emberd
from emberd.errors import BadOptionError, TooLargeError, WrongShapeError
from emberd.spaces.fingerprint import of_late
from tests.serving import Server

TEXTS = ["", "The kettle is on 😀. Tea will be ready soon. Nobody answered. " * 4, "One more."]


def test_chunks_are_places_in_their_texts(small: Server) -> None:
    async def ask() -> emberd.Chunks:
        async with emberd.AsyncClient(small.url) as client:
            return await client.chunk(TEXTS, size=12, overlap=4)

    with emberd.Client(small.url) as client:
        answer = client.chunk(TEXTS, size=12, overlap=4)
        whole = client.chunk(TEXTS[1:], kind="markdown")

    assert {each.text for each in answer.chunks} == {1, 2}
    assert all(each.tokens <= 12 for each in answer.chunks)
    last = answer.chunks[-1]
    assert TEXTS[last.text][last.start : last.end] == "One more."
    assert (answer.size, answer.model) == (12, "tiny")
    assert whole.size > 12
    assert asyncio.run(ask()) == answer


def test_vectors_of_chunks(small: Server) -> None:
    async def ask() -> emberd.Embeddings:
        async with emberd.AsyncClient(small.url) as client:
            return await client.embed(TEXTS, chunk={"size": 12})

    with emberd.Client(small.url) as client:
        answer = client.embed(TEXTS, chunk={"size": 12})
        assert answer.chunks
        alone = client.embed([TEXTS[each.text][each.start : each.end] for each in answer.chunks])

    assert answer.vectors.shape == (len(answer.chunks), 64)
    assert np.allclose(answer.vectors, alone.vectors, atol=1e-6)
    assert answer.vectors.flags.writeable
    assert alone.chunks is None
    assert asyncio.run(ask()).chunks == answer.chunks


def test_how_texts_were_cut_is_how_to_cut_others(small: Server) -> None:
    with emberd.Client(small.url) as client:
        usual = client.embed(TEXTS, chunk={})
        asked = client.embed(TEXTS, chunk={"size": 12, "overlap": 4, "kind": "markdown"})
        again = client.embed(TEXTS, chunk=asked.chunking)
        whole = client.embed(TEXTS)

    assert usual.chunking
    assert usual.chunking["size"] > 12
    assert asked.chunking == {
        "size": 12, "overlap": 4, "kind": "markdown", "language": None, "late": False
    }  # fmt: skip
    assert (again.chunking, again.chunks) == (asked.chunking, asked.chunks)
    assert whole.chunking is None


def test_late_chunking(small: Server) -> None:
    texts = [TEXTS[1][:60], TEXTS[2]]

    async def ask() -> emberd.Embeddings:
        async with emberd.AsyncClient(small.url) as client:
            return await client.embed(texts, chunk={"size": 6, "late": True})

    with emberd.Client(small.url) as client:
        plain = client.embed(texts, chunk={"size": 6})
    late = asyncio.run(ask())

    assert late.fingerprint == of_late(plain.fingerprint)
    assert late.chunking == {**(plain.chunking or {}), "late": True}
    assert late.chunks == plain.chunks
    assert late.vectors.shape == plain.vectors.shape
    assert (late.vectors[0] * plain.vectors[0]).sum() < 0.999
    said = small.embed(*texts, chunk=late.chunking)
    assert np.allclose(late.vectors, said["embeddings"], atol=1e-6)


def test_errors_are_those_of_the_server(small: Server) -> None:
    with emberd.Client(small.url) as client:
        with pytest.raises(WrongShapeError, match="not a list"):
            client.chunk("a text")
        with pytest.raises(BadOptionError, match="special tokens"):
            client.chunk(["a"], size=10**6)
        with pytest.raises(BadOptionError, match="cobol"):
            client.embed(["a"], chunk={"kind": "code", "language": "cobol"})
        with pytest.raises(TooLargeError, match="2048"):
            client.embed(["a " * 5_000], chunk={"size": 2})
