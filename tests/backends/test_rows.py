"""How a batch is described to the graph: positions, which text a token is in, what is pooled."""

import numpy as np
import pytest

from emberd.backends.base import Pooling
from emberd.backends.rows import Rows

IDS = np.array([[5, 6, 7, 8, 9, 0, 0], [5, 1, 6, 7, 8, 9, 3]], np.int32)
TEXTS = np.array([[1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 2, 3, 3, 3]], np.int32)


def of(pooling: Pooling = "mean", padding_id: int | None = None) -> Rows:
    return Rows.of(IDS, TEXTS, pooling=pooling, padding_id=padding_id)


def test_positions_begin_anew_with_each_text() -> None:
    assert of().positions.tolist() == [[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 0, 0, 1, 2]]


def test_positions_of_fairseq_count_what_is_no_padding_and_start_after_its_id() -> None:
    assert of(padding_id=1).positions.tolist() == [[2, 3, 2, 3, 4, 2, 3], [2, 1, 3, 2, 2, 3, 4]]


@pytest.mark.parametrize(
    ("pooling", "places", "starts"),
    [
        ("mean", [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13], [0, 2, 5, 8, 9]),
        ("cls", [0, 2, 7, 10, 11], [0, 1, 2, 3, 4]),
        ("last", [1, 4, 9, 10, 13], [0, 1, 2, 3, 4]),
    ],
)
def test_what_is_pooled(pooling: Pooling, places: list[int], starts: list[int]) -> None:
    rows = of(pooling)

    assert rows.places.tolist() == places
    assert rows.starts.tolist() == starts
    assert all(given.dtype == np.int32 for given in rows.inputs())


def test_only_rows_of_several_texts_need_to_know_who_asks() -> None:
    ones = np.ones((2, 3), np.int32)

    assert of().queries.tolist() == TEXTS.tolist()
    assert Rows.of(ones, ones, pooling="mean", padding_id=None).queries.tolist() == [
        [1],
        [1],
    ]


def test_neighbours_of_equal_number_in_two_rows_are_two_texts() -> None:
    ones = np.ones((2, 3), np.int32)

    assert Rows.of(ones, ones, pooling="mean", padding_id=None).starts.tolist() == [0, 3]
