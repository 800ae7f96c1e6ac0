"""The building blocks of an encoder in MLX, from which the architectures are built.

Shapes: B texts, T tokens, D hidden size; a weight has R rows and C columns.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import mlx.core as mx

from emberd.backends.checkpoint import Checkpoint
from emberd.backends.modules import Activation, Head
from emberd.backends.quantization import GROUP_SIZE, QuantizedMatrix

# By default, MLX multiplies float32 on CUDA with 10 of its 23 bits (lowest cosine 0.9998). It reads
# this setting once, at the first product of the process.
os.putenv("MLX_ENABLE_TF32", "0")


def on_gpu() -> bool:
    """Say whether MLX computes on a GPU in this process."""
    return mx.default_device() == mx.Device(mx.gpu)


def on_cuda() -> bool:
    """Say whether that GPU is from NVIDIA."""
    return on_gpu() and mx.cuda.is_available()


class Weight(Protocol):
    """A matrix `(R, C)`: the table of an embedding, or the weight of a linear layer."""

    def rows(self, index: mx.array) -> mx.array:
        """Look rows up: `(...)` -> `(..., C)`."""
        ...

    def times(self, x: mx.array, bias: mx.array | None) -> mx.array:
        """Return `x @ W.T + bias`: `(..., C)`, `(R,)` -> `(..., R)`."""
        ...

    def part(self, start: int, stop: int) -> "Weight":
        """Return some of its rows."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A matrix of numbers; see `Weight`."""

    values: mx.array

    def rows(self, index: mx.array) -> mx.array:
        """Look rows up."""
        return self.values[index]

    def all_rows(self) -> mx.array:
        """Return `(R, C)`."""
        return self.values

    def part(self, start: int, stop: int) -> "Plain":
        """Return some of its rows."""
        return Plain(self.values[start:stop])

    def times(self, x: mx.array, bias: mx.array | None) -> mx.array:
        """Multiply; a GPU adds the bias in the same kernel."""
        return x @ self.values.T if bias is None else mx.addmm(bias, x, self.values.T)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix that stays quantized in memory; see `Weight` and `quantization.QuantizedMatrix`.

    `dtype` is the type of inputs and outputs.
    """

    words: mx.array
    scales: mx.array
    biases: mx.array
    bits: int
    group_size: int
    dtype: mx.Dtype

    def rows(self, index: mx.array) -> mx.array:
        """Look rows up, and dequantize only these."""
        return self._values(self.words[index], self.scales[index], self.biases[index])

    def all_rows(self) -> mx.array:
        """Return `(R, C)`, dequantized."""
        return self._values(self.words, self.scales, self.biases)

    def part(self, start: int, stop: int) -> "Quantized":
        """Return some of its rows."""
        return replace(
            self,
            words=self.words[start:stop],
            scales=self.scales[start:stop],
            biases=self.biases[start:stop],
        )

    def times(self, x: mx.array, bias: mx.array | None) -> mx.array:
        """Multiply."""
        packed = self.words, self.scales, self.biases
        product = mx.quantized_matmul(x, *packed, group_size=self.group_size, bits=self.bits)
        product = product.astype(self.dtype)
        return product if bias is None else product + bias

    def _values(self, words: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
        values = mx.dequantize(words, scales, biases, group_size=self.group_size, bits=self.bits)
        return values.astype(self.dtype)


def stack(weights: Sequence[Plain | Quantized]) -> Plain | Quantized:
    """Return one matrix of all rows. It stays quantized if all of them are."""
    packed = [weight for weight in weights if isinstance(weight, Quantized)]
    if len(packed) < len(weights):
        return Plain(mx.concatenate([weight.all_rows() for weight in weights]))
    return replace(  # groups lie within rows
        packed[0],
        words=mx.concatenate([weight.words for weight in packed]),
        scales=mx.concatenate([weight.scales for weight in packed]),
        biases=mx.concatenate([weight.biases for weight in packed]),
    )


@dataclass(frozen=True, slots=True)
class Linear:
    """`x @ W.T + b`, or without `b`."""

    weight: Weight
    bias: mx.array | None

    def __call__(self, x: mx.array) -> mx.array:
        """Apply: `(..., C)` -> `(..., R)`."""
        return self.weight.times(x, self.bias)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Normalize the last axis, then scale and shift. Source: arXiv:1607.06450."""

    scale: mx.array
    shift: mx.array | None
    eps: float

    def __call__(self, x: mx.array) -> mx.array:
        """Apply; the shape stays."""
        return mx.fast.layer_norm(x, self.scale, self.shift, self.eps)


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Divide the last axis by its root mean square, then scale. Source: arXiv:1910.07467."""

    scale: mx.array
    eps: float

    def __call__(self, x: mx.array) -> mx.array:
        """Apply; the shape stays."""
        return mx.fast.rms_norm(x, self.scale, self.eps)


class Weights:
    """The layers of a checkpoint by name, with numbers of one type."""

    def __init__(self, checkpoint: Checkpoint, dtype: mx.Dtype) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype

    def embedding(self, name: str, rows: int, columns: int) -> Weight:
        """Return a table of vectors, `(rows, columns)`."""
        return self._matrix(name, rows, columns)

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> Linear:
        """Return a layer from `inputs` to `outputs`."""
        shift = self.vector(f"{name}.bias", outputs) if bias else None
        return Linear(self._matrix(name, outputs, inputs), shift)

    def stacked(
        self, names: Sequence[str], outputs: int, inputs: int, *, bias: bool = True
    ) -> Linear:
        """Return several layers of one size as one, with their outputs one after the other."""
        weight = stack([self._matrix(name, outputs, inputs) for name in names])
        shifts = [self.vector(f"{name}.bias", outputs) for name in names] if bias else []
        return Linear(weight, mx.concatenate(shifts) if bias else None)

    def layer_norm(self, name: str, size: int, eps: float, *, bias: bool = True) -> LayerNorm:
        """Return a layer norm over `size` numbers."""
        shift = self.vector(f"{name}.bias", size) if bias else None
        return LayerNorm(self.vector(f"{name}.weight", size), shift, eps)

    def rms_norm(self, name: str, size: int, eps: float, *, add_to_scale: float = 0.0) -> RMSNorm:
        """Return an RMS norm over `size` numbers."""
        scale = self._checkpoint.vector(f"{name}.weight", size) + add_to_scale
        return RMSNorm(mx.array(scale).astype(self._dtype), eps)

    def integers(self, name: str, length: int, *, below: int) -> mx.array:
        """Return row numbers of a table that has `below` rows: `(length,)` int32."""
        return mx.array(self._checkpoint.integers(name, length, below=below))

    def has(self, name: str) -> bool:
        """Say whether the checkpoint has a tensor."""
        return self._checkpoint.has(name)

    def vector(self, name: str, length: int) -> mx.array:
        """Return a bias, or the scale of a norm: `(length,)`."""
        return mx.array(self._checkpoint.vector(name, length)).astype(self._dtype)

    def _matrix(self, name: str, rows: int, columns: int) -> Plain | Quantized:
        """Return a weight at the stated precision.

        It is quantized from the stored numbers, before they are cast to the type of the
        arithmetic, so that every backend gets the same codes.
        """
        stored = self._checkpoint.matrix(f"{name}.weight", rows, columns)
        if isinstance(stored, QuantizedMatrix):
            words, scales, biases = map(mx.array, (stored.words, stored.scales, stored.biases))
            bits, group_size = stored.bits, stored.group_size
        elif bits_wanted := self._checkpoint.bits_for(columns):
            bits, group_size = bits_wanted, GROUP_SIZE
            # On the CPU: CUDA rounds differently, which gives another space (lowest cosine 0.998).
            words, scales, biases = mx.quantize(
                mx.array(stored), group_size=group_size, bits=bits, stream=mx.cpu
            )
        else:
            return Plain(mx.array(stored).astype(self._dtype))
        # bf16 has too few digits for a scale (lowest cosine 0.9988); float16 has enough.
        dtype = mx.float16 if self._dtype == mx.float16 and not on_cuda() else mx.float32
        scales, biases = scales.astype(dtype), biases.astype(dtype)
        packed = Quantized(words, scales, biases, bits, group_size, self._dtype)
        # CUDA multiplies quantized weights at half the speed of plain ones, and takes half a
        # minute to compile that kernel when it is first needed.
        return Plain(packed.all_rows()) if on_cuda() else packed


def _gelu(x: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    return (wide * (0.5 + 0.5 * mx.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


# On a GPU this is one kernel instead of six. On a CPU it would need a C++ compiler.
_one_kernel_gelu = mx.compile(_gelu, shapeless=True) if on_gpu() else _gelu


def gelu(x: mx.array) -> mx.array:
    """Return the exact GELU. Source: arXiv:1606.08415.

    Computed in float32 whatever `x` is, which is also faster than float16 on an H200.
    """
    return _one_kernel_gelu(x)


def _gelu_tanh(x: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    return (wide * (0.5 + 0.5 * mx.tanh(inner))).astype(x.dtype)


_one_kernel_gelu_tanh = mx.compile(_gelu_tanh, shapeless=True) if on_gpu() else _gelu_tanh


def gelu_tanh(x: mx.array) -> mx.array:
    """Return the tanh approximation of GELU, as in Google's BERT. Source: arXiv:1606.08415, 2."""
    return _one_kernel_gelu_tanh(x)


def silu(x: mx.array) -> mx.array:
    """Return `x * sigmoid(x)`. Source: arXiv:1702.03118."""
    return x * mx.sigmoid(x)


ACTIVATIONS: dict[Activation, Callable[[mx.array], mx.array]] = {
    "Identity": lambda x: x,
    "Tanh": mx.tanh,
    "ReLU": lambda x: mx.maximum(x, 0),
    "GELU": gelu,
    "GELUTanh": gelu_tanh,
    "SiLU": silu,
}
"""Activation functions by their names in `modules.Activation`."""


class Heads:
    """The heads of a checkpoint, in float32: they run once for each text, not each token."""

    def __init__(self, heads: Sequence[Head], checkpoint: Checkpoint) -> None:
        weights = Weights(checkpoint, mx.float32)
        self._steps: list[Callable[[mx.array], mx.array]] = []
        for head in heads:
            linear = weights.linear(head.name, head.outputs, head.inputs, bias=head.bias)
            self._steps += [linear, ACTIVATIONS[head.activation]]
            if head.norm:
                norm = weights.layer_norm(head.norm, head.outputs, head.norm_eps, bias=False)
                self._steps.append(norm)

    def __call__(self, vectors: mx.array) -> mx.array:
        """Apply them in turn: `(N, inputs)` -> `(N, outputs)`, float32."""
        for step in self._steps:
            vectors = step(vectors)
        return vectors
