"""Qwen 3 in MLX; see `architectures.qwen3` for the sources.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architectures.qwen3 import Qwen3
from emberd.backends.mlx.attention import Angles, Rotary
from emberd.backends.mlx.decoder import Attention, FeedForward, norm
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed


class Encoder:
    """Embeddings and a stack of causal layers."""

    def __init__(self, qwen: Qwen3, weights: Weights) -> None:
        self._words = weights.embedding("embed_tokens", qwen.vocab_size, qwen.hidden_size)
        self._layers = [
            _Layer(qwen, weights, f"layers.{index}") for index in range(qwen.num_hidden_layers)
        ]
        self._norm = norm(qwen, weights, "norm")
        self._rotary = Rotary(qwen.head_size, qwen.theta)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._words.rows(batch.token_ids)
        unseen = batch.unseen(x.dtype, causal=True)
        angles = self._rotary.at(batch.positions, x.dtype)
        for layer in self._layers:
            x = layer(x, unseen, angles)
            mx.async_eval(x)  # type: ignore[no-untyped-call]  # as in `post_norm.Layers`
        return self._norm(x)


class _Layer:
    """Attention, then the feed-forward, each applied to a norm of its input and added to it."""

    def __init__(self, qwen: Qwen3, weights: Weights, name: str) -> None:
        self._attention_norm = norm(qwen, weights, f"{name}.input_layernorm")
        self._attention = Attention(qwen, weights, f"{name}.self_attn")
        self._norm = norm(qwen, weights, f"{name}.post_attention_layernorm")
        self._feed_forward = FeedForward(qwen, weights, f"{name}.mlp")

    def __call__(self, x: mx.array, unseen: mx.array | None, angles: Angles) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        x = x + self._attention(self._attention_norm(x), unseen, angles)
        return x + self._feed_forward(self._norm(x))
