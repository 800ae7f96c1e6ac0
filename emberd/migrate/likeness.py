"""How alike two vectors of one text are, in the dtype of a store: the same space, or not?"""

from collections.abc import Mapping

import numpy as np

from emberd.dtypes import Dtype
from emberd.spaces.compare import SAME_SPACE
from emberd.vectors import Matrix, Rows, cosines

SAME: Mapping[Dtype, float] = {
    "float": SAME_SPACE, "float16": SAME_SPACE, "int8": SAME_SPACE, "ubinary": 0.9,
}  # fmt: skip
"""The lowest likeness of two vectors of one text. Arithmetic in bf16 moves int8 hardly at all, and
turns the signs of a few numbers that are nearly zero; vectors of two texts share far fewer."""


def comparable(rows: Rows, dtype: Dtype) -> Matrix:
    """Return vectors as float32, `(N, D)`; bits as 1 and -1."""
    if dtype == "ubinary":
        bits = np.unpackbits(np.ascontiguousarray(rows, np.uint8), axis=1)
        signs: Matrix = 2 * bits.astype(np.float32) - 1
        return signs
    return rows.astype(np.float32)


def likeness(one: Rows, other: Rows, dtype: Dtype) -> Matrix:
    """Return how alike each pair of rows is, 1 at most: two `(N, columns)` -> `(N,)`.

    That is the cosine. For int8 a different length counts, too: the same vector, divided by
    another step, is of another space.
    """
    a, b = comparable(one, dtype), comparable(other, dtype)
    found = cosines(a, b)
    if dtype != "int8":
        return found
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    squares = np.maximum(lengths[0] ** 2 + lengths[1] ** 2, 1.0)
    scaled: Matrix = found * 2 * lengths[0] * lengths[1] / squares
    return scaled
