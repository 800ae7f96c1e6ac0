"""The float32 matrix: encoded vectors read back the same, and unusable ones are found."""

import base64
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd import vectors
from emberd.vectors import Matrix

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149  # above zero


def matrix(*rows: list[float]) -> Matrix:
    return np.array(rows, np.float32)


def digits(written: str) -> int:
    """Count the significant digits of a decimal."""
    return len(written.lower().split("e")[0].replace("-", "").replace(".", "").strip("0")) or 1


@given(st.lists(floats32, min_size=1, max_size=20))
def test_a_number_in_json_reads_back_as_the_same_float32(row: list[float]) -> None:
    (text,) = vectors.encode(matrix(row), "json")

    again = np.array(json.loads(text), np.float32)
    assert again.tobytes() == matrix(row).tobytes()  # the sign of a zero too


@given(floats32)
def test_a_number_in_json_has_no_digit_too_many(number: float) -> None:
    (text,) = vectors.encode(matrix([number]), "json")

    shortest = np.format_float_scientific(np.float32(number), unique=True, trim="-")
    assert digits(text.decode().strip("[]")) == digits(shortest)


@given(st.lists(floats32, min_size=3, max_size=3))
def test_base64_is_a_json_string_of_little_endian_floats(row: list[float]) -> None:
    (text,) = vectors.encode(matrix(row), "base64")

    assert struct.unpack("<3f", base64.b64decode(json.loads(text))) == tuple(row)


@given(st.lists(floats32, min_size=3, max_size=3))
def test_raw_is_little_endian_floats(row: list[float]) -> None:
    assert vectors.encode(matrix(row), "raw") == [struct.pack("<3f", *row)]


def test_each_row_is_encoded_by_itself_in_order() -> None:
    assert vectors.encode(matrix([1, 0.5], [-2, 1e-8]), "json") == [b"[1.0,0.5]", b"[-2.0,1e-8]"]


def test_columns_of_a_transposed_matrix_are_encoded_as_rows() -> None:
    sideways = matrix([1, 2], [3, 4]).T

    assert vectors.encode(sideways, "raw") == vectors.encode(matrix([1, 3], [2, 4]), "raw")
    assert vectors.encode(sideways, "json") == [b"[1.0,3.0]", b"[2.0,4.0]"]


def test_normalizing_keeps_the_direction_and_makes_the_length_one() -> None:
    assert vectors.normalize(matrix([3, 4], [0, -2])) == pytest.approx(matrix([0.6, 0.8], [0, -1]))


@pytest.mark.parametrize("size", [LARGEST, 1e-30, SMALLEST])
def test_normalizing_survives_extreme_sizes(size: float) -> None:
    unit = vectors.normalize(matrix([size, size, size, size]))

    assert unit.dtype == np.float32
    assert unit == pytest.approx(np.full((1, 4), 0.5))


def test_a_layer_norm_gives_mean_0_and_deviation_1_at_any_length() -> None:
    normal = vectors.layer_norm(matrix([1, 2, 3, 6], [1000, 2000, 3000, 6000]))

    deviation = math.sqrt(14 / 4)  # of 1, 2, 3 and 6, whose mean is 3
    assert normal.dtype == np.float32
    assert normal == pytest.approx(np.array([[-2, -1, 0, 3]] * 2) / deviation, abs=1e-5)


def test_truncating_keeps_the_first_columns_in_memory_of_their_own() -> None:
    whole = matrix([1, 2, 3], [4, 5, 6])

    short = vectors.truncate(whole, 2)

    assert short.tolist() == [[1, 2], [4, 5]]
    assert short.flags.c_contiguous
    assert vectors.truncate(whole, 3).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("row", "usable"),
    [
        ([1, 2], True),
        ([0, -1], True),
        ([LARGEST, -LARGEST], True),
        ([SMALLEST, 0], True),
        ([0, 0], False),
        ([-0.0, 0.0], False),
        ([np.nan, 1], False),
        ([1, np.inf], False),
        ([-np.inf, np.nan], False),
    ],
)
def test_a_row_is_usable_when_it_is_finite_and_not_zero(row: list[float], usable: bool) -> None:
    assert vectors.finite_rows(matrix(row)).tolist() == [usable]


def test_a_bad_row_says_nothing_of_its_neighbours() -> None:
    rows = matrix([1, 0], [np.nan, 0], [0, 1], [0, 0])

    assert vectors.finite_rows(rows).tolist() == [True, False, True, False]


def test_a_vector_that_is_zero_or_not_finite_is_near_nothing() -> None:
    rows = matrix([1, 0], [0, 0], [np.nan, 1], [3, 4])

    assert vectors.cosines(rows, rows).tolist() == pytest.approx([1, 0, 0, 1])
    assert vectors.lowest_cosine(rows, rows) == 0
    assert vectors.lowest_cosine(rows[[0, 3]], rows[[0, 3]]) == pytest.approx(1)
    assert vectors.lowest_cosine(rows, rows[:, :1]) == 0
