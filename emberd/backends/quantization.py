"""MLX's affine quantization in NumPy: the same weights on every backend, to the last bit.

Each group of 64 neighbours on the last axis shares a scale and a bias: `w' = code * scale + bias`.
Checked against `mlx.core.quantize` and `dequantize`, whose formula this is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from emberd.vectors import Matrix

Codes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]

GROUP_SIZE: Final = 64
_SMALLEST_SCALE: Final = np.float32(1e-7)
_BLOCK_ROWS: Final = 512  # temporaries of this many rows stay in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedMatrix:
    """A quantized matrix `(R, C)` as MLX stores it.

    `words`: `(R, C * bits / 32)`, the codes of a row from the lowest bits of a word upwards.
    `scales` and `biases`: `(R, C / group_size)`, float32.
    """

    words: Words
    scales: Matrix
    biases: Matrix
    bits: int
    group_size: int

    def dequantize(self) -> Matrix:
        """Return the values, `(R, C)`, float32."""
        return dequantize(unpack(self.words, self.bits), self.scales, self.biases)


def quantize(matrix: Matrix, bits: int) -> tuple[Codes, Matrix, Matrix]:
    """Quantize `(R, C)` to codes of `bits` bits; `C` must be a multiple of `GROUP_SIZE`.

    Returns:
        Codes `(R, C)`, uint8, one per byte; scales and biases `(R, C / GROUP_SIZE)`, float32.
    """
    rows, columns = matrix.shape
    codes = np.empty((rows, columns), np.uint8)
    scales = np.empty((rows, columns // GROUP_SIZE), np.float32)
    biases = np.empty_like(scales)
    for start in range(0, rows, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        groups = matrix[block].reshape(-1, columns // GROUP_SIZE, GROUP_SIZE)
        scale, bias = _scale_and_bias(groups, bits)
        steps = np.rint((groups - bias[..., None]) / scale[..., None])
        codes[block] = steps.clip(0, 2**bits - 1).reshape(-1, columns)
        scales[block], biases[block] = scale, bias
    return codes, scales, biases


def dequantize(codes: Codes, scales: Matrix, biases: Matrix) -> Matrix:
    """Return `code * scale + bias`: `(R, C)`, two `(R, G)` -> `(R, C)`, float32."""
    values = np.empty(codes.shape, np.float32)
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        groups = codes[block].reshape(*scales[block].shape, -1)
        products = groups * scales[block][..., None]
        products += biases[block][..., None]
        values[block] = products.reshape(-1, codes.shape[1])
    return values


def unpack(words: Words, bits: int) -> Codes:
    """Return the codes in MLX's words: `(R, W)` -> `(R, W * 32 / bits)`; `bits` divides 8."""
    octets = words.astype("<u4", copy=False).view(np.uint8)  # (R, 4 W), lowest bits first
    per_octet = 8 // bits
    codes = np.empty((*octets.shape, per_octet), np.uint8)
    for place in range(per_octet):
        codes[..., place] = (octets >> (place * bits)) & (2**bits - 1)
    return codes.reshape(len(words), -1)


def bf16_of(values: Matrix) -> npt.NDArray[np.uint16]:
    """Return the nearest bfloat16 numbers, ties to even, as their bits; the shape stays."""
    halves = np.empty(values.shape, np.uint16)
    for start in range(0, len(values), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        words = np.ascontiguousarray(values[block]).view(np.uint32)
        halves[block] = (words + (0x7FFF + ((words >> 16) & 1))) >> 16
    return halves


def round_to_bf16(values: Matrix) -> Matrix:
    """Return the nearest bfloat16 values, still as float32."""
    return (bf16_of(values).astype(np.uint32) << 16).view(np.float32)


def _scale_and_bias(groups: Matrix, bits: int) -> tuple[Matrix, Matrix]:
    """Fit each group: `(..., 64)` -> two `(...)`.

    The bias is the end of the range that is farther from zero, and the scale is bent so that
    zero itself is one of the codes.
    """
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    low_is_far = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / np.float32(2**bits - 1), _SMALLEST_SCALE)
    scale = np.where(low_is_far, scale, -scale)
    far = np.where(low_is_far, low, high)
    steps_to_zero = np.rint(far / scale)
    reaches_zero = steps_to_zero != 0
    scale = np.divide(far, steps_to_zero, out=scale, where=reaches_zero)
    return scale, np.where(reaches_zero, far, np.float32(0))
