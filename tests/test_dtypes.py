"""Smaller dtypes: what sentence-transformers makes of the same vectors, in a known byte order."""

import base64
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd import vectors
from emberd.dtypes import NUMPY, Dtype, columns, row_bytes
from emberd.errors import BadOptionError
from emberd.vectors import Matrix

REFERENCE = json.loads(Path(__file__).parent.joinpath("reference", "quantized.json").read_text())
VECTORS = np.array(REFERENCE["vectors"], np.float32)
STEP: float = REFERENCE["step"]
SMALL: list[Dtype] = ["int8", "uint8", "binary", "ubinary"]
BYTES_OF: list[Dtype] = ["float", "float16", *SMALL]


@pytest.mark.parametrize("dtype", SMALL)
def test_it_is_what_sentence_transformers_makes_with_the_same_ranges(dtype: Dtype) -> None:
    expected = REFERENCE["quantized"]["ranges"][dtype]

    found = vectors.quantize(VECTORS, dtype, np.array(REFERENCE["ranges"], np.float32))

    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", SMALL)
def test_a_step_is_such_ranges(dtype: Dtype) -> None:
    sent = vectors.encode(VECTORS, "json", dtype, STEP)

    assert [json.loads(row) for row in sent] == REFERENCE["quantized"]["step"][dtype]


@given(st.integers(-128, 127), st.floats(-0.49, 0.49), st.integers(-14, 3))
def test_with_a_step_int8_is_the_nearest_multiple(number: int, off: float, exponent: int) -> None:
    step = 5 * 2.0**exponent
    row = np.full((1, 8), (number + off) * step, np.float32)

    assert vectors.quantize(row, "int8", vectors.ranges(step, 8)).tolist() == [[number] * 8]


def test_what_is_outside_saturates() -> None:
    far = np.array([[1e30, -1e30, 0, 1, -1, 1e5, -1e5, 0.5]], np.float32)

    small = vectors.quantize(far, "int8", vectors.ranges(2**-8, 8))
    half = vectors.quantize(far, "float16")

    assert small.tolist() == [[127, -128, 0, 127, -128, 127, -128, 127]]
    assert half.tolist() == [[65504, -65504, 0, 1, -1, 65504, -65504, 0.5]]


@given(st.floats(2**-60, 2**60))
def test_a_step_reaches_the_magnitude_and_hardly_further(magnitude: float) -> None:
    step = vectors.step_for(magnitude)

    assert magnitude <= 127 * step <= magnitude * 1.2501
    mantissa, _ = math.frexp(step)
    assert mantissa * 8 in (4, 5, 6, 7)  # exact in float32, and one of few


def test_nearly_the_same_magnitudes_have_one_step() -> None:
    """bf16 moves the largest number of a unit vector by some thousandths of it."""
    draw = np.random.default_rng(1).uniform(0.1, 0.5, 500)

    same = [vectors.step_for(each) == vectors.step_for(each * 1.003) for each in draw]

    assert sum(same) >= 480


@pytest.mark.parametrize("dtype", BYTES_OF)
def test_raw_and_base64_are_the_bytes_of_the_numbers_in_json(dtype: Dtype) -> None:
    rows = vectors.encode(VECTORS, "raw", dtype, STEP)
    packed = vectors.encode(VECTORS, "base64", dtype, STEP)
    numbers = [json.loads(row) for row in vectors.encode(VECTORS, "json", dtype, STEP)]

    assert rows == [np.array(row, NUMPY[dtype]).tobytes() for row in numbers]
    assert rows == [base64.b64decode(json.loads(row)) for row in packed]
    assert {len(row) for row in rows} == {row_bytes(VECTORS.shape[1], dtype)}


def test_the_first_sign_is_the_most_significant_bit() -> None:
    row: Matrix = np.array([[1, -1, -1, -1, -1, -1, -1, 1]], np.float32)

    assert vectors.encode(row, "raw", "ubinary") == [b"\x81"]
    assert vectors.encode(row, "json", "binary") == [b"[1]"]  # 129 - 128


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_bits_need_whole_bytes(dtype: Dtype) -> None:
    assert columns(384, dtype) == 48
    with pytest.raises(BadOptionError, match="100 cannot be divided by 8") as refused:
        columns(100, dtype)
    assert refused.value.hint
