"""Do a model's weights in float32 fit into the memory that is free now? A guess before a load."""

import math
from typing import Final

import psutil

from emberd.backends.tensors import open_tensors
from emberd.units import format_size
from emberd.verify.files import Files

GROWTH: Final = 1.3  # the peak of a load, in the weights' bytes in float32
WORKER_BYTES: Final = 300 * 2**20  # interpreter, libraries, tokenizer, and one batch
PACKED: Final = 8  # weights of 4 bits in a word of 32


def too_big(files: Files) -> str | None:
    """Return why a worker with these weights in float32 is not started here, or None.

    Raises:
        ModelLoadError: a file of the weights cannot be read.
    """
    needs = GROWTH * _float32_bytes(files) + WORKER_BYTES
    free = psutil.virtual_memory().available
    if needs <= free:
        return None
    return f"it may need {format_size(int(needs))} of memory; {format_size(free)} are free"


def _float32_bytes(files: Files) -> int:
    tensors = (
        tensor
        for name in files.hashes
        if name.endswith(".safetensors")
        for tensor in open_tensors(files.folder / name).values()
    )
    return sum(
        4 * math.prod(tensor.shape) * (PACKED if tensor.dtype == "U32" else 1) for tensor in tensors
    )
