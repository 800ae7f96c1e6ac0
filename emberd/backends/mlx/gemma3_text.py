"""Gemma 3 in MLX; see `architectures.gemma3_text` for the sources.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architectures.gemma3_text import Gemma3
from emberd.backends.mlx.attention import Angles
from emberd.backends.mlx.decoder import Attention, FeedForward, norm
from emberd.backends.mlx.layer_kinds import Kinds
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed


class Encoder:
    """Scaled embeddings and a stack of layers, some global and the others local."""

    def __init__(self, gemma: Gemma3, weights: Weights) -> None:
        self._words = weights.embedding("embed_tokens", gemma.vocab_size, gemma.hidden_size)
        self._scale = gemma.hidden_size**0.5
        self._layers = [
            _Layer(gemma, weights, f"layers.{index}") for index in range(gemma.num_hidden_layers)
        ]
        self._norm = norm(gemma, weights, "norm")
        self._kinds = Kinds(gemma.kinds, gemma.head_size)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._words.rows(batch.token_ids) * self._scale
        kinds = self._kinds.of(batch, x.dtype)
        for layer, (unseen, angles) in zip(self._layers, kinds, strict=True):
            x = layer(x, unseen, angles)
            mx.async_eval(x)  # type: ignore[no-untyped-call]  # as in `post_norm.Layers`
        return self._norm(x)


class _Layer:
    """Attention, then the feed-forward, each between two norms and added to its input."""

    def __init__(self, gemma: Gemma3, weights: Weights, name: str) -> None:
        self._before_attention, self._after_attention, self._before, self._after = (
            norm(gemma, weights, f"{name}.{which}_layernorm")
            for which in ("input", "post_attention", "pre_feedforward", "post_feedforward")
        )
        self._attention = Attention(gemma, weights, f"{name}.self_attn")
        self._feed_forward = FeedForward(gemma, weights, f"{name}.mlp")

    def __call__(self, x: mx.array, unseen: mx.array | None, angles: Angles) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        attended = self._attention(self._before_attention(x), unseen, angles)
        x = x + self._after_attention(attended)
        return x + self._after(self._feed_forward(self._before(x)))
