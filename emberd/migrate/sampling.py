"""Takes a sample of a store's rows, to embed again and compare."""

from collections.abc import Iterable, Sequence

import numpy as np

from emberd.dtypes import NUMPY, Dtype
from emberd.stores.base import Row
from emberd.vectors import Rows

SAMPLE = 200  # rows, by default


def sampled(rows: Iterable[Row], total: int, count: int) -> list[Row]:
    """Return `count` of `total` rows, evenly spread, or all if there are fewer.

    The row with the longest text always takes the place of its nearest neighbour, because it shows
    whether a model cuts texts.
    """
    wanted, found = positions(total, count), dict[int, Row]()
    longest: tuple[int, Row] | None = None
    for position, row in enumerate(rows):
        if position in wanted:
            found[position] = row
        if longest is None or len(row.text or "") > len(longest[1].text or ""):
            longest = position, row
    if longest and found and longest[0] not in found:
        at, row = longest
        del found[min(found, key=lambda position: abs(position - at))]
        found[at] = row
    return [found[position] for position in sorted(found)]


def positions(rows: int, count: int) -> set[int]:
    """Return at most `count` positions, evenly spread over `rows`."""
    return set(np.linspace(0, rows - 1, min(count, rows)).astype(int).tolist()) if rows else set()


def vectors_of(rows: Sequence[Row], dtype: Dtype = "float") -> Rows:
    """Return the vectors of rows as the store has them: `(N, D)`, of bits `(N, D / 8)`."""
    return np.stack([np.frombuffer(row.vector, NUMPY[dtype]) for row in rows])
