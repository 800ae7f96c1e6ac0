"""How MLX gets its batches: in few shapes on CUDA, and each before the last one has ended."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from emberd.backends import shapes
from emberd.backends.base import Pooling
from emberd.backends.mlx.backend import MLXBackend
from tests.backends.support import a_request, batch_of
from tests.cosines import cosines

mx = pytest.importorskip("mlx.core")

MOST_TOKENS = 48  # of `tiny`


@pytest.mark.parametrize(("texts", "tokens"), [(1, 1), (1, 8), (5, 9), (9, 33), (17, 48), (8, 40)])
def test_a_padded_batch_holds_what_it_held_and_rows_to_be_dropped(texts: int, tokens: int) -> None:
    token_ids = np.arange(texts * tokens, dtype=np.int32).reshape(texts, tokens)
    mask = np.ones_like(token_ids)

    grown_ids, grown_mask = shapes.pad(token_ids, mask, max_tokens=MOST_TOKENS)

    assert (grown_ids[:texts, :tokens] == token_ids).all()
    assert grown_mask[:texts].sum() == mask.sum()
    assert (grown_mask[texts:].sum(axis=1) == 1).all()
    assert (mask == 1).all()  # the caller's own
    assert grown_ids.dtype == grown_mask.dtype == np.int32


@pytest.mark.slow
def test_batches_of_all_sizes_have_few_shapes_and_little_padding() -> None:
    seen = set()
    for texts, tokens in product(range(1, 257), range(1, 513)):
        if texts * tokens <= 16_384:
            empty = np.zeros((texts, tokens), np.int32)
            height, width = shapes.pad(empty, empty, max_tokens=512)[0].shape
            assert texts <= height <= texts * 1.25
            assert tokens <= width <= max(tokens * 1.25, tokens + 7)
            seen.add((height, width))

    assert len(seen) < 500


def test_rows_of_several_texts_have_powers_of_two_as_shapes() -> None:
    seen = {
        shapes.pad(empty, empty, max_tokens=512, steps=1)[0].shape
        for texts, tokens in product(range(1, 65), range(1, 513, 7))
        for empty in [np.zeros((texts, tokens), np.int32)]
    }

    assert seen == {(2**height, 2**width) for height, width in product(range(7), range(3, 10))}


def test_no_text_grows_past_what_the_model_takes() -> None:
    ids = np.zeros((1, 509), np.int32)

    assert shapes.pad(ids, ids, max_tokens=510)[0].shape == (1, 510)


def test_padding_to_a_shape_changes_no_vector(tiny: Path, tmp_path: Path) -> None:
    encoder = MLXBackend().load(a_request(tiny, tmp_path))
    token_ids, mask = batch_of([2, 5, 7, 3], [2, 9, 3], [8], [1] * 17, [4] * 9)

    vectors = encoder.encode(token_ids, mask)
    grown = encoder.encode(*shapes.pad(token_ids, mask, max_tokens=MOST_TOKENS))

    assert grown.shape[0] == 5
    assert cosines(vectors, grown).min() > 0.99999
    again = encoder.encode(*shapes.pad(*batch_of(*[[2, 5, 7, 3]] * 9), max_tokens=MOST_TOKENS))
    assert np.isfinite(again).all()
    assert again.shape[0] == 10


def test_a_batch_can_be_started_before_the_last_has_ended(tiny: Path, tmp_path: Path) -> None:
    encoder = MLXBackend().load(a_request(tiny, tmp_path))
    batches = [batch_of([2, 5, 7], [3]), batch_of([4] * 20), batch_of([9, 1], [6, 6], [7])]
    expected = [encoder.encode(*batch) for batch in batches]

    finishes = [encoder.start(*batch) for batch in batches]

    for finish, vectors in zip(finishes, expected, strict=True):
        np.testing.assert_allclose(finish(), vectors, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("few_shapes", [False, True])
def test_texts_packed_into_a_row_have_the_vectors_they_have_alone(
    tiny: Path, tmp_path: Path, pooling: Pooling, *, few_shapes: bool
) -> None:
    encoder = MLXBackend().load(replace(a_request(tiny, tmp_path), pooling=pooling))
    alone = encoder.encode(*batch_of([2, 5, 7, 3], [2, 9, 3], [8], [6, 6]))
    token_ids = np.array([[2, 5, 7, 3, 2, 9, 3, 8], [6, 6, 0, 0, 0, 0, 0, 0]], np.int32)
    mask = np.array([[1, 1, 1, 1, 2, 2, 2, 3], [1, 1, 0, 0, 0, 0, 0, 0]], np.int32)

    encoder.few_shapes = few_shapes
    packed = encoder.encode(token_ids, mask)

    assert packed.shape == alone.shape
    assert cosines(packed, alone).min() > 0.99999
