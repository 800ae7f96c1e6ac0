"""Principal components: the directions in which vectors differ most. Exact, by eigenvectors."""

import numpy as np
import numpy.typing as npt

from emberd.vectors import Matrix

BLOCK = 8192  # rows that are centred at once

Wide = npt.NDArray[np.float64]


def principal_components(vectors: Matrix, count: int) -> tuple[Matrix, list[float]]:
    """Return the first components of `(N, D)`, `(N, K)`, and the share of variance of each.

    K is `count`, or fewer if there are fewer rows or dimensions. The sign of each is such that its
    largest weight is positive, so that the same vectors give the same picture.
    """
    rows, dimensions = vectors.shape
    kept = min(count, rows, dimensions)
    if not kept:
        return np.zeros((rows, 0), np.float32), []
    mean = vectors.mean(axis=0, dtype=np.float64)  # (D,)
    directions, variances = _directions(vectors, mean, kept)
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(kept)])
    found: Matrix = vectors @ directions.astype(np.float32) - (mean @ directions).astype(np.float32)
    return found, variances.tolist()


def _directions(vectors: Matrix, mean: Wide, kept: int) -> tuple[Wide, Wide]:
    """Return the eigenvectors with the largest eigenvalues, `(D, K)`, and their shares, `(K,)`.

    With fewer rows than dimensions, the smaller matrix of the rows gives the same ones.
    """
    rows, dimensions = vectors.shape
    if rows < dimensions:
        centred = vectors - mean
        values, found = np.linalg.eigh(centred @ centred.T)
        found = centred.T @ found[:, ::-1][:, :kept]
        lengths = np.linalg.norm(found, axis=0)
        found = found / np.where(lengths > 0, lengths, 1)
    else:
        scatter = np.zeros((dimensions, dimensions))
        for at in range(0, rows, BLOCK):
            block = (vectors[at : at + BLOCK] - mean).astype(np.float32)  # twice as fast
            scatter += block.T @ block
        values, found = np.linalg.eigh(scatter)
        found = found[:, ::-1][:, :kept]
    values = np.maximum(values[::-1], 0)
    return found, values[:kept] / (values.sum() or 1)
