"""How near a backend comes to the references, by architecture: for the tests and for the table.

In float32 the reference is what transformers makes of the tiny checkpoints. With quantized weights
it is the same arithmetic in float32 on weights that MLX has quantized and dequantized again, of
another backend where there is one.
"""

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from emberd.backends import plugins
from emberd.backends.architectures.native import name_of
from emberd.backends.base import Backend, Compute, Encoder, Pooling, Precision
from emberd.backends.config import ModelConfig
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.tensors import Tensor, open_tensors
from emberd.vectors import Matrix, lowest_cosine
from tests.backends.references import (
    TINY,
    batch_of,
    copy_of,
    load,
    poolings_of,
    vectors_of,
)

BACKENDS: dict[str, Backend] = {"openvino": OpenVINOBackend(), "mlx": MLXBackend()}
BITS: dict[Precision, int] = {"8bit": 8, "4bit": 4}


def architecture_of(name: str) -> str:
    """Return the architecture of a tiny checkpoint."""
    return name_of(ModelConfig(TINY / name / "config.json"))


@cache
def checkpoints() -> dict[str, list[str]]:
    """Return the names of the tiny checkpoints by architecture."""
    found: dict[str, list[str]] = {}
    for folder in sorted(TINY.iterdir()):
        found.setdefault(architecture_of(folder.name), []).append(folder.name)
    return found


def runs(backend: str, name: str) -> bool:
    """Whether the backend says that it runs the architecture of a tiny checkpoint."""
    return architecture_of(name) in plugins.architectures(BACKENDS[backend])


def encode(
    backend: Backend,
    folder: Path,
    scratch: Path,
    *,
    pooling: Pooling | None = None,
    precision: Precision = "f32",
    compute: Compute = "f32",
    name: str = "",
    rows: int | None = None,
) -> Matrix:
    """Load a checkpoint and encode the texts of `name`, or of the one that the folder is called."""
    encoder = load(backend, folder, scratch, pooling=pooling, precision=precision, compute=compute)
    token_ids, mask = batch_of(name or folder.name)
    return encoder.encode(token_ids[:rows], mask[:rows])


def lowest_to_transformers(backend: str, name: str, scratch: Path) -> float:
    """Return the lowest cosine to transformers' vectors: all poolings, alone and in a batch."""
    lowest = 1.0
    for pooling in poolings_of(name):
        folder = copy_of(name, scratch / pooling / name, pooling=pooling)
        encoder = load(BACKENDS[backend], folder, scratch / pooling / backend, pooling=pooling)
        lowest = min(lowest, _lowest(encoder, name, vectors_of(name, pooling)))
    return lowest


def lowest_to_dequantized(backend: str, name: str, precision: Precision, scratch: Path) -> float:
    """Return the lowest cosine of quantized weights to dequantized ones, alone and in a batch."""
    others = [other for other in BACKENDS if other != backend and runs(other, name)]
    folder = copy_of(name, scratch / precision / name)
    dequantize(folder, BITS[precision])
    reference = encode(BACKENDS[others[0] if others else backend], folder, scratch / "dequantized")
    encoder = load(BACKENDS[backend], TINY / name, scratch / backend, precision=precision)
    return _lowest(encoder, name, reference)


def dequantize(folder: Path, bits: int) -> None:
    """Replace each matrix that can be quantized by what MLX makes of it and back, in float32."""
    for path in (folder / "model.safetensors", *folder.glob("*_Dense/model.safetensors")):
        tensors = {name: _rounded(tensor, bits) for name, tensor in open_tensors(path).items()}
        path.unlink()  # it is mapped
        save_file(tensors, path)


def _rounded(tensor: Tensor, bits: int) -> Matrix:
    import mlx.core as mx

    if tensor.dtype.startswith("I"):
        whole: Matrix = tensor.integers()  # type: ignore[assignment]
        return whole
    values = tensor.floats()
    if values.ndim != 2 or values.shape[1] % 64:
        return values.copy()
    packed = mx.quantize(mx.array(values), group_size=64, bits=bits, stream=mx.cpu)
    return np.array(mx.dequantize(*packed, group_size=64, bits=bits, stream=mx.cpu))


def _lowest(encoder: Encoder, name: str, reference: Matrix) -> float:
    token_ids, mask = batch_of(name)
    alone = [
        encoder.encode(row[None, : seen.sum()], seen[None, : seen.sum()])
        for row, seen in zip(token_ids, mask, strict=True)
    ]
    together = encoder.encode(token_ids, mask)
    return min(lowest_cosine(together, reference), lowest_cosine(np.concatenate(alone), reference))
