"""The probe texts' vectors, encoded and compared."""

import numpy as np
import pytest

from emberd.spaces.probes import PROBES, decode, encode, lowest_cosine
from emberd.vectors import Matrix
from emberd.vectors import lowest_cosine as of_matrices

DRAW = np.random.default_rng(5)
VECTORS: Matrix = DRAW.standard_normal((len(PROBES), 16)).astype(np.float32)


def test_vectors_are_kept_to_the_last_bit() -> None:
    assert np.array_equal(np.array(decode(encode(VECTORS)), np.float32), VECTORS)


@pytest.mark.parametrize("encoded", ["", "AAAA", "AAAAAA==", "no base64", "ä"])
def test_damaged_base64_has_no_rows(encoded: str) -> None:
    assert decode(encoded) == []
    assert lowest_cosine(encoded, encode(VECTORS)) == 0


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3, 2.0])
def test_the_lowest_cosine_is_what_numpy_finds(noise: float) -> None:
    moved = VECTORS + noise * DRAW.standard_normal(VECTORS.shape).astype(np.float32)

    found = lowest_cosine(encode(VECTORS), encode(moved))

    assert found == pytest.approx(of_matrices(VECTORS, moved.astype(np.float32)), abs=2e-6)


def test_as_many_dimensions_are_compared_as_one_asks() -> None:
    whole, eight = encode(VECTORS), encode(VECTORS[:, :8])

    assert lowest_cosine(whole, eight) == 0
    assert lowest_cosine(whole, eight, 8) == pytest.approx(1)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_vectors_that_are_not_finite_are_like_none(value: float) -> None:
    damaged = VECTORS.copy()
    damaged[3, 3] = value

    assert lowest_cosine(encode(VECTORS), encode(damaged)) == 0
    assert of_matrices(VECTORS, damaged) == 0


def test_a_vector_of_zeros_is_like_none() -> None:
    damaged = VECTORS.copy()
    damaged[2] = 0

    assert lowest_cosine(encode(VECTORS), encode(damaged)) == 0
    assert of_matrices(VECTORS, damaged) == 0
    assert of_matrices(VECTORS, VECTORS[:, :8]) == 0


def test_a_text_without_a_vector_in_either_space_is_left_out() -> None:
    one, other = VECTORS.copy(), VECTORS + 0.01
    one[2] = other[2] = 0

    assert lowest_cosine(encode(one), encode(other)) > 0.99
    assert lowest_cosine(encode(0 * one), encode(0 * other)) == 0


def test_the_largest_floats_do_not_overflow() -> None:
    huge = np.full_like(VECTORS, 3e38)

    assert lowest_cosine(encode(huge), encode(huge)) == pytest.approx(1)
