"""The building blocks of an encoder in MLX; the architectures put them together.

Shapes: B texts, T tokens, D hidden size; a weight has R rows and C columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from emberd.backends.base import Pooling
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.modules import Activation, Head
from emberd.backends.quantization import GROUP_SIZE, Packed


class Weight(Protocol):
    """A matrix `(R, C)`: the table of an embedding, or the weight of a linear layer."""

    def rows(self, index: mx.array) -> mx.array:
        """Look rows up: `(...)` -> `(..., C)`."""
        ...

    def times(self, x: mx.array) -> mx.array:
        """Return `x @ W.T`: `(..., C)` -> `(..., R)`."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A matrix of numbers; see `Weight`."""

    values: mx.array

    def rows(self, index: mx.array) -> mx.array:
        """Look rows up."""
        return self.values[index]

    def times(self, x: mx.array) -> mx.array:
        """Multiply."""
        return x @ self.values.T


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix that stays packed in memory; see `Weight` and `backends.quantization.Packed`.

    `dtype` is the type of what goes in and comes out.
    """

    words: mx.array
    scales: mx.array
    biases: mx.array
    bits: int
    group_size: int
    dtype: mx.Dtype

    def rows(self, index: mx.array) -> mx.array:
        """Look rows up, and dequantize only these."""
        packed = self.words[index], self.scales[index], self.biases[index]
        values = mx.dequantize(*packed, group_size=self.group_size, bits=self.bits)
        return values.astype(self.dtype)

    def times(self, x: mx.array) -> mx.array:
        """Multiply."""
        packed = self.words, self.scales, self.biases
        product = mx.quantized_matmul(x, *packed, group_size=self.group_size, bits=self.bits)
        return product.astype(self.dtype)


@dataclass(frozen=True, slots=True)
class Linear:
    """`x @ W.T + b`, or without `b`."""

    weight: Weight
    bias: mx.array | None

    def __call__(self, x: mx.array) -> mx.array:
        """Apply: `(..., C)` -> `(..., R)`."""
        product = self.weight.times(x)
        return product if self.bias is None else product + self.bias


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Normalize the last axis, then scale and shift. Source: arXiv:1607.06450."""

    scale: mx.array
    shift: mx.array
    eps: float

    def __call__(self, x: mx.array) -> mx.array:
        """Apply; the shape stays."""
        return mx.fast.layer_norm(x, self.scale, self.shift, self.eps)


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

    def layer_norm(self, name: str, size: int, eps: float) -> LayerNorm:
        """Return a layer norm over `size` numbers."""
        scale, shift = self.vector(f"{name}.weight", size), self.vector(f"{name}.bias", size)
        return LayerNorm(scale, shift, eps)

    def vector(self, name: str, length: int) -> mx.array:
        """Return a bias, or the scale of a norm: `(length,)`."""
        return mx.array(self._checkpoint.vector(name, length)).astype(self._dtype)

    def _matrix(self, name: str, rows: int, columns: int) -> Weight:
        """Return a weight at the stated precision.

        It is quantized from its stored numbers, before these are cast to the type of the
        arithmetic, so that every backend gets the same codes.
        """
        stored = self._checkpoint.matrix(f"{name}.weight", rows, columns)
        if isinstance(stored, Packed):
            words, scales, biases = map(mx.array, (stored.words, stored.scales, stored.biases))
            bits, group_size = stored.bits, stored.group_size
        elif bits_wanted := self._checkpoint.bits_for(columns):
            bits, group_size = bits_wanted, GROUP_SIZE
            words, scales, biases = mx.quantize(mx.array(stored), group_size=group_size, bits=bits)
        else:
            return Plain(mx.array(stored).astype(self._dtype))
        # bf16 has too few digits for a scale (lowest cosine 0.9988); float16 has enough.
        dtype = mx.float16 if self._dtype == mx.float16 else mx.float32
        scales, biases = scales.astype(dtype), biases.astype(dtype)
        return Quantized(words, scales, biases, bits, group_size, self._dtype)


def gelu(x: mx.array) -> mx.array:
    """Return `x` times the normal distribution up to `x`, exactly. Source: arXiv:1606.08415."""
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


_ACTIVATIONS: dict[Activation, Callable[[mx.array], mx.array]] = {
    "Identity": lambda x: x,
    "Tanh": mx.tanh,
    "ReLU": lambda x: mx.maximum(x, 0),
    "GELU": gelu,
}


class Pooled:
    """One vector of a text: its token vectors pooled, then the heads, in float32."""

    def __init__(self, pooling: Pooling, heads: Sequence[Head], weights: Weights) -> None:
        self._pooling = pooling
        self._heads = [
            (
                weights.linear(head.name, head.outputs, head.inputs, bias=head.bias),
                _ACTIVATIONS[head.activation],
            )
            for head in heads
        ]

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        """Apply: `(B, T, D)`, `(B, T)` -> `(B, D)`, float32."""
        vectors = pool(tokens, mask, self._pooling)
        for linear, activation in self._heads:
            vectors = activation(linear(vectors))
        return vectors.astype(mx.float32)


def pool(tokens: mx.array, mask: mx.array, pooling: Pooling) -> mx.array:
    """Make one vector of each row's tokens: `(B, T, D)`, `(B, T)` -> `(B, D)`, float32."""
    tokens = tokens.astype(mx.float32)
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "last":
        last = (mask * mx.arange(mask.shape[1])).max(axis=1)  # (B,): on whichever side padding is
        return mx.take_along_axis(tokens, last[:, None, None], axis=1)[:, 0]
    # What padding holds is not to be trusted, and 0 * inf would be NaN.
    kept = (mask != 0)[:, :, None]  # (B, T, 1)
    return mx.where(kept, tokens, 0).sum(axis=1) / kept.sum(axis=1)
