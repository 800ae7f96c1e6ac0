"""The nearest texts, against a plain computation in float64."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from emberd.migrate import nearest as module
from emberd.migrate.nearest import kept, nearest, tau
from emberd.vectors import Matrix

RANDOM = np.random.default_rng(0)


def plainly(queries: Matrix, texts: Matrix) -> npt.NDArray[np.float64]:
    a, b = queries.astype(np.float64), texts.astype(np.float64)
    products = a @ b.T
    cosines: npt.NDArray[np.float64] = products / np.outer(
        np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    )
    return cosines


@pytest.mark.parametrize("block", [3, 7, 100, 4096])
@pytest.mark.parametrize("count", [1, 10, 40])
def test_the_nearest_are_those_of_a_full_sort(
    monkeypatch: pytest.MonkeyPatch, block: int, count: int
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    queries, texts = (RANDOM.normal(size=(rows, 8)).astype(np.float32) for rows in (20, 40))
    queries *= 7  # not normalized

    found = nearest(queries, texts, count)

    assert np.array_equal(found, np.argsort(-plainly(queries, texts), axis=1)[:, :count])


@pytest.mark.parametrize("block", [3, 4096])
def test_a_text_is_not_its_own_neighbour(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    texts = RANDOM.normal(size=(30, 8)).astype(np.float32)
    cosines = plainly(texts, texts)
    np.fill_diagonal(cosines, -2)

    for some in (5, 30):  # the first few are queries, or all
        found = nearest(texts[:some], texts, 29, themselves=True)

        assert np.array_equal(found, np.argsort(-cosines[:some], axis=1)[:, :29])


def test_of_equal_texts_the_earlier_comes_first() -> None:
    texts = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)

    assert nearest(texts[3:4], texts, 3)[0].tolist() == [3, 4, 5]


def test_what_is_kept_is_what_both_have_among_the_first() -> None:
    one = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]])
    other = np.array([[3, 1, 9, 2], [8, 9, 1, 5], [2, 3, 1, 0]])

    assert kept(one, other, 3).tolist() == [2, 0, 3]


def test_tau_counts_pairs_that_changed_places() -> None:
    for order in itertools.permutations(range(5)):
        pairs = [*itertools.combinations(order, 2)]
        right = sum(a < b for a, b in pairs)

        expected = (right - (len(pairs) - right)) / len(pairs)
        assert tau(np.array(order)) == pytest.approx(expected)
