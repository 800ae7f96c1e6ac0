"""T5's encoder in MLX; see `architectures.t5` for the sources.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architectures.t5 import T5
from emberd.backends.mlx.attention import DistanceBias, attend, split_heads
from emberd.backends.mlx.layers import ACTIVATIONS, Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.relative_positions import BUCKETS


class Encoder:
    """Token embeddings and a stack of pre-norm layers with relative positions."""

    def __init__(self, t5: T5, weights: Weights) -> None:
        self._words = weights.embedding("shared", t5.vocab_size, t5.hidden_size)
        first = "block.0.layer.0.SelfAttention.relative_attention_bias"
        table = weights.embedding(first, BUCKETS, t5.num_heads)
        self._bias = DistanceBias(table, t5.max_tokens)
        self._layers = [
            part
            for index in range(t5.num_layers)
            for part in (
                Attention(t5, weights, f"block.{index}.layer.0"),
                FeedForward(t5, weights, f"block.{index}.layer.1"),
            )
        ]
        self._norm = weights.rms_norm("final_layer_norm", t5.hidden_size, t5.eps)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._words.rows(batch.token_ids)
        bias = self._bias.of(batch, x.dtype)
        for part in self._layers:
            x = x + part(x, bias)
            # let a GPU begin while the CPU still builds the rest of the graph
            mx.async_eval(x)  # type: ignore[no-untyped-call]
        return self._norm(x)


class Attention:
    """Attention with a bias for each distance."""

    def __init__(self, t5: T5, weights: Weights, name: str) -> None:
        size, inner = t5.hidden_size, t5.num_heads * t5.head_size
        self._heads = t5.num_heads
        self._norm = weights.rms_norm(f"{name}.layer_norm", size, t5.eps)
        self._query, self._key, self._value = (
            weights.linear(f"{name}.SelfAttention.{which}", inner, size, bias=False)
            for which in "qkv"
        )
        self._joined = weights.linear(f"{name}.SelfAttention.o", size, inner, bias=False)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        """Attend: `(B, T, D)` stays. Scores are not scaled."""
        x = self._norm(x)
        query, key, value = (
            split_heads(project(x), self._heads)
            for project in (self._query, self._key, self._value)
        )
        return self._joined(attend(query, key, value, bias, scale=1.0))


class FeedForward:
    """Two linear layers, or three if it is gated."""

    def __init__(self, t5: T5, weights: Weights, name: str) -> None:
        size, wide = t5.hidden_size, t5.intermediate_size
        self._norm = weights.rms_norm(f"{name}.layer_norm", size, t5.eps)
        self._first, *self._second = (
            weights.linear(f"{name}.DenseReluDense.{which}", wide, size, bias=False)
            for which in (("wi_0", "wi_1") if t5.is_gated else ("wi",))
        )
        self._narrow = weights.linear(f"{name}.DenseReluDense.wo", size, wide, bias=False)
        self._activate = ACTIVATIONS[t5.activation]

    def __call__(self, x: mx.array, _bias: mx.array) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        x = self._norm(x)
        widened = self._activate(self._first(x))
        for factor in self._second:
            widened = widened * factor(x)
        return self._narrow(widened)
