"""How alike vectors are, row by row."""

import numpy as np

from emberd.vectors import Matrix


def cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each pair of rows, `(N,)`."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    result: Matrix = (a * b).sum(axis=1) / lengths
    return result
