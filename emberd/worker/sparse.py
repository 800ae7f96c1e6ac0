"""Sparse vectors: from rows that are nearly all zero to the bytes that clients get.

A row of zeros is a vector here: of a text for which the model finds no entry of its vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from emberd.vectors import Matrix

SKETCH = 1024

Entries = tuple[npt.NDArray[np.intp], Matrix]
"""The indices of a vector that are not zero, ascending, and the values there."""


def finite_rows(rows: Matrix) -> npt.NDArray[np.bool_]:
    """Say for each row whether it is usable, all of it finite: `(N, V)` -> `(N,)` bool.

    A NaN is the largest of any row that has one.
    """
    usable: npt.NDArray[np.bool_] = np.isfinite(rows.max(axis=1))
    return usable


def encode(rows: Matrix, *, pairs: bool) -> list[bytes]:
    """Return each row of `(N, V)` as JSON; see `encode_entries`."""
    found = [row.nonzero()[0] for row in rows]
    return encode_entries(
        [(indices, row[indices]) for indices, row in zip(found, rows, strict=True)], pairs=pairs
    )


def encode_entries(vectors: Sequence[Entries], *, pairs: bool) -> list[bytes]:
    """Return each vector as JSON: `{"indices": [...], "values": [...]}`.

    With `pairs`, as text-embeddings-inference does: `[{"index": 1, "value": 0.5}, ...]`. Values are
    the shortest decimals that parse to the same float32.
    """
    option = orjson.OPT_SERIALIZE_NUMPY
    objects = [
        orjson.dumps({"indices": indices, "values": values}, option=option)
        for indices, values in vectors
    ]
    if not pairs:
        return objects
    return [_as_pairs(**orjson.loads(each)) for each in objects]


def _as_pairs(indices: list[int], values: list[float]) -> bytes:
    return orjson.dumps(
        [{"index": index, "value": value} for index, value in zip(indices, values, strict=True)]
    )


def sketch(rows: Matrix) -> Matrix:
    """Return rows in which every 1,024th number is added up: `(N, V)` -> `(N, 1024)`.

    Short enough to remember. Rows that are the same have the same sketch, and rows that point
    elsewhere a sketch that does.
    """
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % SKETCH)))
    folded: Matrix = padded.reshape(len(rows), -1, SKETCH).sum(axis=1, dtype=np.float32)
    return folded
