"""The tensors of a safetensors file by name, memory-mapped: nothing is read until it is used.

Format: https://huggingface.co/docs/safetensors/index#format (eight bytes of length, a JSON header,
then the data that the header points into).
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from emberd.backends.mapped import map_file
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix

Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.uint16]

_EXPONENTS: Final[Mapping[str, np.unsignedinteger[Any]]] = {
    "F64": np.uint64(0x7FF0 << 48),
    "F32": np.uint32(0x7F800000),
    "BF16": np.uint16(0x7F80),
    "F16": np.uint16(0x7C00),
}
"""The bits of the exponent: all of them are set in NaN and infinity, and in no other number."""

_BLOCK: Final = 2**16  # numbers; what is made of so many stays in the processor's cache


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file `path`; `dtype` is the format's own name for it, such as `BF16`.

    `pages` are those of the whole file.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes
    pages: mmap.mmap

    def check(self) -> None:
        """Raise `ModelLoadError` if a number is NaN or infinite: so would every vector be."""
        exponent = _EXPONENTS.get(self.dtype)
        if exponent is None:
            return
        bits = self._view(exponent.dtype.type).reshape(-1)
        for start in range(0, bits.size, _BLOCK):
            block = bits[start : start + _BLOCK]
            if ((block & exponent) == exponent).any():
                raise ModelLoadError(
                    f"{self.path}: {self.name} has numbers that are NaN or infinite.",
                    hint="The weights are damaged, or were saved so. Get them again, or choose"
                    " another revision of the model.",
                )

    def floats(self) -> Matrix:
        """Return float32 of `shape`: for F32 the file's own pages, for F64 the nearest.

        Others are widened exactly.
        """
        if self.dtype == "F32":
            return self._view(np.float32)
        if self.dtype == "F16":
            return self._view(np.float16).astype(np.float32)
        if self.dtype == "F64":
            return self._view(np.float64).astype(np.float32)
        if self.dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
            return (self.halves().astype(np.uint32) << 16).view(np.float32)
        raise ModelLoadError(
            f"{self.path}: {self.name} is {self.dtype}, not F64, F32, BF16 or F16."
        )

    def integers(self) -> npt.NDArray[np.int64]:
        """Return int64 of `shape`."""
        if self.dtype not in ("I32", "I64"):
            raise ModelLoadError(f"{self.path}: {self.name} is {self.dtype}, not I32 or I64.")
        return self._view(np.int32 if self.dtype == "I32" else np.int64).astype(np.int64)

    def halves(self) -> Halves:
        """Return the bits of BF16 numbers, in the file's own pages: upper halves of float32."""
        return self._view(np.uint16)

    def words(self) -> npt.NDArray[np.uint32]:
        """Return the uint32 of a U32 tensor, in the file's own pages."""
        return self._view(np.uint32)

    def _view(self, dtype: type[np.generic]) -> npt.NDArray[Any]:
        # The format does not promise alignment; vector instructions may want it.
        return np.require(self.data.view(dtype), requirements=["ALIGNED"]).reshape(self.shape)


def open_tensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file. Names are the file's own.

    Raises:
        ModelLoadError: the file is missing, short, or damaged in its header.
    """
    try:
        with safe_open(path, framework="numpy"):
            pass  # opening has checked the header: its size, its JSON, and every bound in it
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(
            f"{path} cannot be read: {error}.",
            hint="Delete the file and pull the model again, or repair it if it is your own.",
        ) from error
    pages = map_file(path)
    data = np.frombuffer(pages, np.uint8)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    return {
        name: Tensor(
            path,
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
            pages,
        )
        for name, entry in header.items()
    }
