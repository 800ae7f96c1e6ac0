"""Late chunking: each chunk's vector is the mean of its tokens, in the light of the whole text."""

from pathlib import Path

import numpy as np
import pytest

from emberd.backends.base import Backend
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.rows import Rows
from emberd.vectors import Matrix
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer
from tests.backends import late
from tests.backends.references import MOST_TOKENS, TINY, copy_of, load
from tests.cosines import cosines

BOTH = pytest.mark.parametrize("backend", [OpenVINOBackend(), MLXBackend()], ids=type)
NAMED = pytest.mark.parametrize("name", late.NAMES)


@BOTH
@NAMED
@pytest.mark.parametrize("prompt", ["", late.PROMPT], ids=["alone", "prompted"])
def test_the_vectors_of_chunks_are_those_of_transformers(
    backend: Backend, name: str, prompt: str, tmp_path: Path
) -> None:
    encoder = load(backend, TINY / name, tmp_path)
    tokenizer = Tokenizer(TINY / name, MOST_TOKENS[name])
    found = []
    for text in late.texts_of(name):
        tokens = tokenizer.encode_chunks(text.text, prompt, text.spans)
        chunks = np.array(tokens.chunks, np.int32)
        found.append(encoder.encode(*pad([tokens]), chunks=chunks))  # type: ignore[call-arg]

    vectors = np.concatenate(found)
    reference = late.vectors_of(name, prompted=bool(prompt))
    assert cosines(vectors, reference).min() > 0.99999
    np.testing.assert_allclose(vectors, reference, atol=1e-4)


@NAMED
def test_a_chunk_has_the_tokens_of_its_characters(name: str) -> None:
    tokenizer = Tokenizer(TINY / name, MOST_TOKENS[name])

    for text in late.texts_of(name):
        tokens = tokenizer.encode_chunks(text.text, "", text.spans)
        assert tokens.chunks == text.chunks
        assert tokens.ids == tokenizer.encode([text.text])[0].ids


@BOTH
def test_a_single_chunk_of_single_tokens_and_of_all(backend: Backend, tmp_path: Path) -> None:
    """Whatever else is pooled, and in a batch that is wider than the text."""
    encoder = load(backend, TINY / "bert", tmp_path)
    ids = np.array([[2, 40, 41, 42, 3, 0, 0]], np.int32)
    mask = np.array([[1, 1, 1, 1, 1, 0, 0]], np.int32)

    def encode(*chunks: tuple[int, int]) -> Matrix:
        made: Matrix = encoder.encode(ids, mask, chunks=np.array(chunks, np.int32))  # type: ignore[call-arg]
        return made

    singles = encode((1, 2), (2, 3), (3, 4))
    assert cosines(encode((1, 4)), singles.mean(axis=0, keepdims=True)).min() > 0.99999
    assert cosines(encode((0, 5)), encoder.encode(ids, mask)).min() > 0.99999
    assert cosines(encode((2, 3)), singles[1:2]).min() > 0.99999


@BOTH
def test_only_means_can_be_taken_of_chunks(backend: Backend, tmp_path: Path) -> None:
    mean = load(backend, TINY / "bert", tmp_path)
    assert mean.pools_chunks  # type: ignore[attr-defined]
    folder = copy_of("bert", tmp_path / "bert", pooling="cls")
    cls = load(backend, folder, tmp_path, pooling="cls")
    assert not cls.pools_chunks  # type: ignore[attr-defined]


def test_what_chunks_pool() -> None:
    ones = np.ones((1, 6), np.int32)
    chunks = np.array([[1, 3], [2, 5]], np.int32)

    rows = Rows.of(ones, ones, pooling="mean", padding_id=None, chunks=chunks)

    assert rows.places.tolist() == [1, 2, 2, 3, 4]
    assert rows.starts.tolist() == [0, 2]
    assert rows.texts == 2
    assert all(given.dtype == np.int32 for given in rows.inputs())


@pytest.mark.parametrize("few_shapes", [False, True])
def test_mlx_pools_chunks_in_batches_of_few_shapes_too(few_shapes: bool) -> None:
    import mlx.core as mx

    from emberd.backends.mlx.packed import Packed

    mask = np.array([[1, 1, 1, 1, 1, 0]], np.int32)
    tokens = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    tokens[0, 5] = np.inf  # padding may hold anything
    chunks = np.array([[1, 3], [2, 5], [4, 5]], np.int32)
    rows = Rows.of(mask, mask, pooling="mean", padding_id=None, chunks=chunks)

    pooled = np.array(Packed.of(rows, mask, few_shapes=few_shapes).pool(mx.array(tokens)))

    assert len(pooled) == (4 if few_shapes else 3)
    assert np.isfinite(pooled).all()
    assert pooled[:3].tolist() == [
        tokens[0, first:end].mean(axis=0).tolist() for first, end in chunks
    ]
