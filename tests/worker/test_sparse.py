"""Sparse vectors as bytes, and which rows are usable."""

import json

import numpy as np
import pytest

from emberd.worker import sparse

ROWS = np.zeros((3, 3000), np.float32)
ROWS[0, [7, 2500]] = 0.1, 2.5
ROWS[2, 0] = np.nextafter(np.float32(0), np.float32(1))


def test_what_is_not_zero_is_sent() -> None:
    assert [json.loads(each) for each in sparse.encode(ROWS, pairs=False)[:2]] == [
        {"indices": [7, 2500], "values": [0.1, 2.5]},
        {"indices": [], "values": []},
    ]
    assert sparse.encode(ROWS, pairs=True)[:2] == [
        b'[{"index":7,"value":0.1},{"index":2500,"value":2.5}]',
        b"[]",
    ]
    (smallest,) = json.loads(sparse.encode(ROWS, pairs=False)[2])["values"]
    assert np.float32(smallest) == ROWS[2, 0]


def test_a_row_of_zeros_is_usable() -> None:
    assert sparse.finite_rows(ROWS).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_not(bad: float) -> None:
    rows = ROWS.copy()
    rows[1, 5] = bad
    assert sparse.finite_rows(rows).tolist() == [True, False, True]


def test_sketches_tell_vectors_apart() -> None:
    short = sparse.sketch(ROWS)
    assert short.shape == (3, 1024)
    assert short.sum(axis=1) == pytest.approx(ROWS.sum(axis=1))
    moved = ROWS.copy()
    moved[0, 7], moved[0, 8] = 0, 0.1
    assert not np.array_equal(sparse.sketch(moved)[0], short[0])
