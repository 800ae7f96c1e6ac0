"""The numeric type that all parts share: a float32 matrix with one row per text."""

import base64
from typing import Literal

import numpy as np
import numpy.typing as npt
import orjson

Matrix = npt.NDArray[np.float32]
Encoding = Literal["json", "base64", "raw"]


def finite_rows(vectors: Matrix) -> npt.NDArray[np.bool_]:
    """Say for each row whether it is usable, finite and not zero: `(N, D)` -> `(N,)` bool."""
    lengths = np.linalg.norm(
        vectors.astype(np.float64), axis=1
    )  # squares in float64 cannot overflow
    usable: npt.NDArray[np.bool_] = np.isfinite(lengths) & (lengths > 0)
    return usable


def normalize(vectors: Matrix) -> Matrix:
    """Scale each row to length 1: `(N, D)` -> `(N, D)`, float32. Rows must not be zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)  # (N, 1)
    unit: Matrix = (vectors / lengths).astype(np.float32)
    return unit


def cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each pair of rows: two `(N, D)` -> `(N,)`; 0 if a row is not usable."""
    usable = finite_rows(a) & finite_rows(b)
    result = np.zeros(len(a), np.float32)
    result[usable] = (normalize(a[usable]) * normalize(b[usable])).sum(axis=1)
    return result


def lowest_cosine(a: Matrix, b: Matrix) -> float:
    """Return the lowest cosine of a pair of rows; 0 if the shapes differ or a row is not usable."""
    if a.shape != b.shape or not (finite_rows(a).all() and finite_rows(b).all()):
        return 0.0
    return round(float(cosines(a, b).min()), 6)


def layer_norm(vectors: Matrix) -> Matrix:
    """Give each row mean 0 and standard deviation 1: `(N, D)` -> `(N, D)`, float32.

    Source: arXiv:1607.06450, without weights, and with torch's epsilon.
    """
    wide = vectors.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    normal: Matrix = (centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)).astype(
        np.float32
    )
    return normal


def truncate(vectors: Matrix, dimensions: int) -> Matrix:
    """Keep the first `dimensions` columns: `(N, D)` -> `(N, dimensions)`; normalize afterwards.

    Source: Matryoshka Representation Learning, arXiv:2205.13147, section 3.
    """
    return np.ascontiguousarray(vectors[:, :dimensions])


def encode(vectors: Matrix, encoding: Encoding) -> list[bytes]:
    """Return each row of `(N, D)` as the bytes that are sent to clients.

    `json`: an array of the shortest decimals that parse to the same float32. `base64`: a JSON
    string of little-endian float32 in base64. `raw`: little-endian float32.
    """
    rows = np.ascontiguousarray(vectors, "<f4")
    if encoding == "json":
        return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]
    if encoding == "base64":
        return [b'"' + base64.b64encode(row.tobytes()) + b'"' for row in rows]
    return [row.tobytes() for row in rows]
