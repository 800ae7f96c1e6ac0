"""Which rows are looked at; see `test_check.py` for real stores."""

import pytest

from emberd.migrate.sampling import positions, vectors_of
from emberd.stores.base import Row


@pytest.mark.parametrize(
    ("rows", "count", "found"),
    [(0, 5, set()), (3, 5, {0, 1, 2}), (5, 2, {0, 4}), (101, 3, {0, 50, 100})],
)
def test_positions_are_spread_from_the_first_row_to_the_last(
    rows: int, count: int, found: set[int]
) -> None:
    assert positions(rows, count) == found


def test_vectors_are_little_endian_float32() -> None:
    rows = [Row(1, "a", b"\0\0\x80\x3f\0\0\0\x40"), Row(2, "b", bytes(8))]

    assert vectors_of(rows).tolist() == [[1, 2], [0, 0]]
