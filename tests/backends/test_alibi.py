"""ALiBi, all at once or in blocks of queries, beside the same in numpy."""

from functools import cache

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset15 as op

from emberd.backends.base import TokenIds
from emberd.backends.mlx import attention as mlx_attention
from emberd.backends.mlx.packed import Packed
from emberd.backends.openvino.alibi import MOST_AT_ONCE, Alibi
from emberd.backends.openvino.graph import Batch
from emberd.backends.rows import Rows

HEADS, SIZE = 3, 8
SLOPES = [0.5, 0.0625, 0.00390625]
Values = npt.NDArray[np.float32]

ONE_TEXT = [
    [(1, tokens)]
    for tokens in (8, MOST_AT_ONCE, MOST_AT_ONCE + 1, 768, 9, 900, MOST_AT_ONCE, 600, 1, 901)
]
SEVERAL = [[(1, 5), (2, 7), (0, 4)], [(1, 350), (2, 240), (0, 10)], [(1, 1), (2, 1), (0, 600)]]


def mask_of(spans: list[tuple[int, int]]) -> TokenIds:
    """Rows of two: the texts in `spans`, and another of half their length, padded."""
    row = np.concatenate([np.full(length, number, np.int32) for number, length in spans])
    other = np.where(np.arange(len(row)) < (len(row) + 1) // 2, 1, 0)
    return np.stack([row, other.astype(np.int32)])


def expected(query: Values, key: Values, value: Values, mask: TokenIds) -> Values:
    place = np.arange(mask.shape[1])
    distances = np.abs(place[:, None] - place)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(SIZE)
    scores = scores - np.array(SLOPES, np.float32)[:, None, None] * distances
    scores = np.where(mask[:, None, :, None] == mask[:, None, None, :], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    attended = weights / weights.sum(-1, keepdims=True) @ value
    joined: Values = attended.swapaxes(1, 2).reshape(*mask.shape, HEADS * SIZE)
    return joined


@cache
def compiled() -> ov.CompiledModel:
    """All lengths run on one, as in a server: none may leave anything to the next."""
    inputs = [op.parameter([-1, HEADS, -1, SIZE], np.float32) for _ in range(3)]
    segments, queries = (op.parameter([-1, -1], np.int32) for _ in range(2))
    alibi = Alibi(SLOPES, Batch(segments, segments, segments, queries))
    model = ov.Model([alibi.attend(*inputs)], [*inputs, segments, queries])
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def by_openvino(query: Values, key: Values, value: Values, rows: Rows) -> Values:
    inputs = (query, key, value, rows.segments, rows.queries)
    attended: Values = compiled()(inputs, share_inputs=False)[0].copy()
    return attended


def by_mlx(query: Values, key: Values, value: Values, rows: Rows, mask: TokenIds) -> Values:
    batch = Packed.of(rows, mask, few_shapes=False)
    alibi = mlx_attention.Alibi(SLOPES, batch, mx.float32)
    q, k, v = (mx.array(part) for part in (query, key, value))
    return np.array(alibi.attend(q, k, v, SIZE**-0.5))


@pytest.mark.parametrize("spans", [*ONE_TEXT, *SEVERAL])
def test_texts_attend_within_themselves_less_with_every_token_between(
    spans: list[tuple[int, int]],
) -> None:
    mask = mask_of(spans)
    draw = np.random.default_rng(5)
    shape = (len(mask), HEADS, mask.shape[1], SIZE)
    query, key, value = (draw.standard_normal(shape, np.float32) for _ in range(3))
    rows = Rows.of(mask, mask, pooling="mean", padding_id=None)

    ours = by_openvino(query, key, value, rows)
    theirs = by_mlx(query, key, value, rows, mask)

    tokens = mask > 0  # padding may hold anything, but no NaN
    reference = expected(query, key, value, mask)
    for attended in (ours, theirs):
        np.testing.assert_allclose(attended[tokens], reference[tokens], atol=2e-5)
        assert np.isfinite(attended).all()
