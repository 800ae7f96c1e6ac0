"""The numeric type that all parts share: a float32 matrix with one row per text, and its bytes."""

import base64
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from emberd.dtypes import NUMPY, Dtype, has_step

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]  # of any dtype, one for each text
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


def largest(vectors: Matrix) -> float:
    """Return the largest magnitude of any number in `(N, D)`."""
    return float(np.abs(vectors).max())


def step_for(magnitude: float) -> float:
    """Return the step with which int8 covers numbers up to this magnitude.

    It is rounded up to 4, 5, 6 or 7 times a power of two, so that machines whose arithmetic differs
    a little nearly always find the same one.
    """
    least = magnitude / 127
    scale = 2.0 ** (math.floor(math.log2(least)) - 2)
    return math.ceil(least / scale) * scale


def ranges(step: float, dimensions: int) -> Matrix:
    """Return the ranges, `(2, D)`, in which `quantize` rounds each number to the nearest step."""
    return np.full((dimensions, 2), (-128.5 * step, 126.5 * step), np.float32).T


def quantize(vectors: Matrix, dtype: Dtype, ranges: Matrix | None = None) -> Rows:
    """Return `(N, D)` as `dtype`; as `(N, D / 8)` if that packs bits.

    Source: `quantize_embeddings` of sentence-transformers 6.2.0 (util/quantization.py), whose
    results these are, bit by bit: int8 and uint8 divide the range of each dimension into 255 steps,
    and what is outside saturates; ubinary has the signs, the first in the most significant bit, and
    binary is ubinary - 128. float16 saturates, too.

    Args:
        vectors: the float32 vectors.
        dtype: what to make of them.
        ranges: for int8 and uint8: the lowest and the highest number of each dimension, `(2, D)`.
    """
    if dtype == "float":
        singles: Rows = np.ascontiguousarray(vectors, NUMPY[dtype])
        return singles
    if dtype == "float16":
        most = float(np.finfo(np.float16).max)
        halves: Rows = np.clip(vectors, -most, most).astype(NUMPY[dtype])
        return halves
    if has_step(dtype):
        assert ranges is not None  # as it has a step
        steps = (ranges[1] - ranges[0]) / 255
        steps = np.where(steps == 0, 1, steps)
        levels = np.clip(np.floor((vectors - ranges[0]) / steps), 0, 255)
        small: Rows = (levels - 128).astype(np.int8) if dtype == "int8" else levels.astype(np.uint8)
        return small
    bits: npt.NDArray[np.uint8] = np.packbits(vectors > 0, axis=-1)
    return bits if dtype == "ubinary" else (bits - np.uint8(128)).view(np.int8)


def encode(
    vectors: Matrix, encoding: Encoding, dtype: Dtype = "float", step: float = 0.0
) -> list[bytes]:
    """Return each row of `(N, D)` as the bytes that are sent to clients.

    `json`: an array of numbers, floats as the shortest decimals that parse to the same float.
    `base64`: a JSON string of the little-endian bytes in base64. `raw`: the little-endian bytes.
    `step` is that of int8 and uint8.
    """
    limits = ranges(step, vectors.shape[1]) if has_step(dtype) else None
    rows = quantize(vectors, dtype, limits)
    if encoding == "json":
        return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]
    if encoding == "base64":
        return [b'"' + base64.b64encode(row.tobytes()) + b'"' for row in rows]
    return [row.tobytes() for row in rows]
