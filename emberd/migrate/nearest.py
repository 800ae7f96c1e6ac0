"""The nearest texts of each query, exactly, and what two rankings of them have in common."""

import numpy as np
import numpy.typing as npt

from emberd.vectors import Matrix, normalize

BLOCK = 4096  # texts whose cosines with all queries are in memory at once

Found = npt.NDArray[np.int64]
"""`(Q, K)`: for each query the places of the nearest texts, the nearest first."""
Counts = npt.NDArray[np.int64]


def nearest(queries: Matrix, texts: Matrix, count: int, *, themselves: bool = False) -> Found:
    """Return the `count` texts with the highest cosine: `(Q, D)` and `(N, D)` -> `(Q, count)`.

    With `themselves`, query i is text i, which is not among its own nearest. There must be enough
    texts, and no vector may be zero.
    """
    wanted = normalize(queries)
    best = np.full((len(queries), count), -np.inf, np.float32)
    places = np.zeros((len(queries), count), np.int64)
    for start in range(0, len(texts), BLOCK):
        block = normalize(texts[start : start + BLOCK])
        cosines = wanted @ block.T
        if themselves:
            own = np.arange(start, min(start + len(block), len(queries)))
            cosines[own, own - start] = -np.inf
        here = np.broadcast_to(np.arange(start, start + len(block)), cosines.shape)
        best, places = _highest(np.hstack([best, cosines]), np.hstack([places, here]), count)
    return places


def _highest(cosines: Matrix, places: Found, count: int) -> tuple[Matrix, Found]:
    some = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(cosines, some, 1), axis=1, kind="stable")
    order = np.take_along_axis(some, order, 1)  # of two equal ones, the earlier text comes first
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(places, order, 1)


def kept(one: Found, other: Found, count: int) -> Counts:
    """Return how many of the first `count` of `one` are among those of `other`: `(Q,)`."""
    same = one[:, :count, None] == other[:, None, :count]
    counts: Counts = same.any(axis=2).sum(axis=1)
    return counts


def tau(order: npt.NDArray[np.int64]) -> float:
    """Return Kendall's tau between the order 0, 1, 2, ... and another order of the same places.

    1.0: the same order, -1.0: the opposite one. There must be at least two places.
    """
    swapped = np.triu(order[:, None] > order[None, :], 1).sum()
    pairs = len(order) * (len(order) - 1) / 2
    return float(1 - 2 * swapped / pairs)
