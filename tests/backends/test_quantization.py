"""Our quantization matches MLX's to the last bit."""

from pathlib import Path

import numpy as np
import pytest

from emberd.backends.quantization import dequantize, quantize, round_to_bf16, unpack
from emberd.backends.tensors import open_tensors
from emberd.vectors import Matrix

mx = pytest.importorskip("mlx.core")


def assert_as_mlx(matrix: Matrix, bits: int) -> None:
    codes, scales, biases = quantize(matrix, bits)
    theirs = mx.quantize(mx.array(matrix), group_size=64, bits=bits)

    np.testing.assert_array_equal(codes, unpack(np.array(theirs[0]), bits))
    np.testing.assert_array_equal(scales, np.array(theirs[1]))
    np.testing.assert_array_equal(biases, np.array(theirs[2]))
    np.testing.assert_array_equal(
        dequantize(codes, scales, biases),
        np.array(mx.dequantize(*theirs, group_size=64, bits=bits)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_every_matrix_of_minilm_is_quantized_as_mlx_does_it(minilm: Path, bits: int) -> None:
    tensors = open_tensors(minilm / "model.safetensors").values()
    matrices = [t.floats() for t in tensors if t.name.endswith(".weight") and len(t.shape) == 2]

    assert len(matrices) == 3 + 6 * 6 + 1  # embeddings, layers, and the pooler
    for matrix in matrices:
        assert_as_mlx(matrix, bits)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-9])
def test_a_group_of_equal_numbers_is_quantized_as_mlx_does_it(value: float, bits: int) -> None:
    assert_as_mlx(np.full((2, 128), value, np.float32), bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_groups_on_one_side_of_zero_are_quantized_as_mlx_does_it(bits: int) -> None:
    positive = np.random.default_rng(1).uniform(1, 2, (600, 64)).astype(np.float32)

    assert_as_mlx(positive, bits)
    assert_as_mlx(-positive, bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_groups_around_zero_are_quantized_as_mlx_does_it(bits: int) -> None:
    around_zero = np.random.default_rng(1).normal(0, 0.05, (600, 128)).astype(np.float32)

    assert_as_mlx(around_zero, bits)


def test_bfloat16_is_rounded_as_mlx_does_it() -> None:
    values = np.random.default_rng(1).normal(0, 1, (100, 100)).astype(np.float32)
    theirs = mx.array(values).astype(mx.bfloat16).astype(mx.float32)

    np.testing.assert_array_equal(round_to_bf16(values), np.array(theirs))
