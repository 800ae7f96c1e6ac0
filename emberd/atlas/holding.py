"""A store's rows as a map holds them: unit vectors, keys, and the beginnings of texts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from emberd.dtypes import NUMPY, Dtype
from emberd.migrate.likeness import comparable
from emberd.migrate.sampling import positions
from emberd.stores.base import Key, Row, Shape, Store
from emberd.vectors import Matrix, finite_rows, normalize

MOST_ROWS = 100_000
MOST_BYTES = 2**30  # of vectors
EXCERPT = 300  # characters of a text
CHECKED = 500  # rows that can be embedded again to find out which model made them
BATCH = 4096

Progress = Callable[[int, int], None]
"""Called with how many rows of how many were read."""


@dataclass(slots=True)
class Held:
    """Rows of a store, in the order of their keys: all of them, or an evenly spread sample.

    `vectors` is `(N, D)`, float32, each of length 1; bits are 1 and -1 before that. `whole` are
    some of the rows as the store has them, evenly spread, by their place in `vectors`. `unusable`
    of the rows that were read have a vector that cannot be placed: zero, not finite, or of another
    size.
    """

    shape: Shape
    vectors: Matrix
    keys: list[Key] = field(default_factory=list)
    excerpts: list[str] = field(default_factory=list)
    whole: dict[int, Row] = field(default_factory=dict)
    unusable: int = 0

    @property
    def is_sample(self) -> bool:
        """Whether the store has more rows than are held."""
        return self.shape.rows > len(self.keys) + self.unusable


def hold(
    store: Store,
    progress: Progress = lambda _done, _total: None,
    *,
    most_characters: int | None = EXCERPT,
) -> Held:
    """Read a store; of each text so many characters, or all. Raises `StoreError`."""
    shape = store.inspect()
    most = min(MOST_ROWS, MOST_BYTES // (4 * shape.dimensions))
    wanted = positions(shape.rows, most)
    every = max(1, len(wanted) // CHECKED)
    held = Held(shape, np.empty((len(wanted), shape.dimensions), np.float32))
    for batch in _batches(store, shape.rows, wanted, progress):
        fitting = [row for row in batch if len(row.vector) == shape.vector_bytes]
        vectors = _floats(fitting, shape.dtype)
        usable = finite_rows(vectors) if fitting else np.zeros(0, bool)
        held.unusable += len(batch) - int(usable.sum())
        at = len(held.keys)
        for row in (row for row, is_usable in zip(fitting, usable, strict=True) if is_usable):
            if len(held.keys) % every == 0 and row.text:
                held.whole[len(held.keys)] = row
            held.keys.append(row.key)
            held.excerpts.append((row.text or "")[:most_characters])
        if usable.any():
            held.vectors[at : len(held.keys)] = normalize(vectors[usable])
    held.vectors = held.vectors[: len(held.keys)]
    return held


def _batches(store: Store, rows: int, wanted: set[int], progress: Progress) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for position, row in enumerate(store.rows()):
        if position % BATCH == 0:
            progress(position, rows)
        if position in wanted:
            batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch
    progress(rows, rows)


def _floats(rows: list[Row], dtype: Dtype) -> Matrix:
    raw = np.frombuffer(b"".join(row.vector for row in rows), NUMPY[dtype])
    return comparable(raw.reshape(len(rows), -1), dtype) if rows else np.zeros((0, 1), np.float32)
