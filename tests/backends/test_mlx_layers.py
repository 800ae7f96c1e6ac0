"""The building blocks in MLX, each compared with plain arithmetic in float64."""

import math

import mlx.core as mx
import numpy as np
import pytest

from emberd.backends.base import Pooling
from emberd.backends.mlx.layers import (
    LayerNorm,
    Plain,
    Quantized,
    gelu,
    gelu_tanh,
    stack,
)
from emberd.backends.mlx.packed import Packed
from emberd.backends.rows import Rows
from emberd.vectors import Matrix

DIGITS = {mx.float32: 1e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}


def numbers(*shape: int, seed: int = 1) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def packed(values: Matrix) -> Quantized:
    words, scales, biases = mx.quantize(mx.array(values), group_size=64, bits=4)
    return Quantized(words, scales, biases, 4, 64, mx.float32)


def error(ours: object, exact: object) -> float:
    """Relative, in the Frobenius norm."""
    theirs = np.asarray(exact, np.float64)
    got = np.asarray(ours, np.float64)
    return float(np.linalg.norm(got - theirs) / np.linalg.norm(theirs))


def test_packed_matrices_are_stacked_packed() -> None:
    parts = [packed(numbers(8, 128, seed=seed)) for seed in range(3)]
    x, bias = mx.array(numbers(5, 128)), mx.array(numbers(24))

    whole = stack(parts)

    assert isinstance(whole, Quantized)
    separate = np.concatenate([np.array(part.times(x, None)) for part in parts], axis=1)
    assert error(whole.times(x, bias), separate + np.array(bias)) < 1e-5


def test_a_packed_and_a_plain_matrix_are_stacked_plain() -> None:
    first, second = packed(numbers(8, 128)), Plain(mx.array(numbers(8, 128, seed=2)))
    x, bias = mx.array(numbers(5, 128)), mx.array(numbers(16))

    whole = stack([first, second])

    assert isinstance(whole, Plain)
    separate = [np.array(part.times(x, None)) for part in (first, second)]
    assert error(whole.times(x, bias), np.concatenate(separate, axis=1) + np.array(bias)) < 1e-5


@pytest.mark.parametrize("dtype", DIGITS)
def test_gelu_is_exact(dtype: mx.Dtype) -> None:
    x = mx.array(np.linspace(-6, 6, 1001, dtype=np.float32)).astype(dtype)

    values = np.array(x.astype(mx.float32), np.float64)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in values]

    assert gelu(x).dtype == dtype
    assert error(gelu(x).astype(mx.float32), exact) < DIGITS[dtype]


@pytest.mark.parametrize("dtype", DIGITS)
def test_gelu_by_tanh_is_its_formula(dtype: mx.Dtype) -> None:
    x = mx.array(np.linspace(-6, 6, 1001, dtype=np.float32)).astype(dtype)

    values = np.array(x.astype(mx.float32), np.float64)
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)

    assert error(gelu_tanh(x).astype(mx.float32), values * (1 + np.tanh(inner)) / 2) < DIGITS[dtype]


def a_batch(
    mask: list[list[int]], pooling: Pooling = "mean", *, few_shapes: bool = False
) -> Packed:
    marks = np.array(mask, np.int32)
    rows = Rows.of(np.abs(marks), marks, pooling=pooling, padding_id=None)
    return Packed.of(rows, marks, few_shapes=few_shapes)


def test_what_is_not_seen_counts_nothing() -> None:
    hidden = a_batch([[1, 1, 0], [1, 0, 0]]).unseen(mx.float16)

    assert hidden is not None
    assert hidden.shape == (2, 1, 1, 3)
    assert hidden.dtype == mx.float16
    shares = np.array(mx.softmax(hidden[:, 0, 0], axis=-1).astype(mx.float32))
    assert shares.tolist() == [[0.5, 0.5, 0], [1, 0, 0]]


def test_in_a_row_of_several_texts_each_sees_itself() -> None:
    hidden = a_batch([[-1, 1, 2, 0], [1, 0, 0, 0]]).unseen(mx.float16)

    assert hidden is not None
    assert hidden.shape == (2, 1, 4, 4)
    shares = np.array(mx.softmax(hidden[0, 0], axis=-1).astype(mx.float32))
    assert shares.tolist() == [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_rows_without_padding_need_no_mask_except_where_shapes_are_few() -> None:
    assert a_batch([[1, 1], [1, 1]]).unseen(mx.float32) is None
    assert a_batch([[1, 1], [1, 1]], few_shapes=True).unseen(mx.float32) is not None


@pytest.mark.parametrize("few_shapes", [False, True])
@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [1, 2.5, 4, 10.5, 13]),
        ("cls", [1, 2, 4, 10, 12]),
        ("last", [1, 3, 4, 11, 14]),
    ],
)
def test_tokens_are_pooled_for_each_text_of_each_row(
    pooling: Pooling, expected: list[float], *, few_shapes: bool
) -> None:
    marks = [[-1, 1, 2, 2, 3, 0, 0, 0, 0], [-1, 1, 1, 2, 2, 2, 0, 0, 0]]
    batch = a_batch(marks, pooling, few_shapes=few_shapes)
    tokens = np.arange(18, dtype=np.float32).reshape(2, 9, 1)
    tokens[0, 5:] = tokens[1, 6:] = np.inf  # padding may hold anything

    assert np.array(batch.pool(mx.array(tokens)))[:5, 0].tolist() == expected


@pytest.mark.parametrize("dtype", DIGITS)
def test_a_layer_norm(dtype: mx.Dtype) -> None:
    norm = LayerNorm(mx.array(numbers(64)), mx.array(numbers(64, seed=2)), 1e-5)
    x = (3 * mx.array(numbers(2, 3, 64, seed=3)) + 1).astype(dtype)

    wide = np.array(x.astype(mx.float32), np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    spread = np.sqrt(wide.var(axis=-1, keepdims=True) + norm.eps)
    exact = centred / spread * np.array(norm.scale) + np.array(norm.shift)
    assert error(norm(x).astype(mx.float32), exact) < DIGITS[dtype]
