"""What the numbers of a vector can be: float32, or something smaller that is made of it.

The words are those of Cohere's `embedding_types` and Voyage's `output_dtype`. `vectors.py` makes
them; this is what everybody else has to know, the server, which has no NumPy, included.
"""

from collections.abc import Mapping
from typing import Literal

from emberd.errors import BadOptionError

Dtype = Literal["float", "float16", "int8", "uint8", "binary", "ubinary"]
"""`float` is float32. `binary` and `ubinary` have the signs of eight numbers in each byte."""

NUMPY: Mapping[Dtype, str] = {
    "float": "<f4", "float16": "<f2", "int8": "|i1", "uint8": "|u1", "binary": "|i1",
    "ubinary": "|u1",
}  # fmt: skip
"""NumPy's own word for each, with the byte order in which it is sent."""

STORED: Mapping[Dtype, str] = {
    "float": "float", "float16": "float16", "int8": "int8", "ubinary": "bit",
}  # fmt: skip
"""What stores call those that they can hold."""

PACKED = 8  # dimensions in a byte of `binary` and `ubinary`


def has_step(dtype: Dtype) -> bool:
    """Whether its numbers are multiples of a step, which is measured for each model."""
    return dtype in ("int8", "uint8")


def columns(dimensions: int, dtype: Dtype) -> int:
    """Return how many numbers a vector of so many dimensions has. Raises BadOptionError."""
    if dtype not in ("binary", "ubinary"):
        return dimensions
    count, rest = divmod(dimensions, PACKED)
    if rest:
        raise BadOptionError(
            f"{dtype} packs 8 dimensions into a byte, and {dimensions} cannot be divided by 8.",
            hint="Choose another size with `dimensions`, if the model has one, or int8.",
            field="output_dtype",
        )
    return count


def row_bytes(dimensions: int, dtype: Dtype) -> int:
    """Return the size of a vector of so many dimensions. Raises BadOptionError."""
    return columns(dimensions, dtype) * int(NUMPY[dtype][-1])
