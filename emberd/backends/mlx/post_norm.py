"""What BERT, RoBERTa and MPNet share, in MLX. Source: arXiv:1706.03762, section 3.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architecture import PostNorm
from emberd.backends.mlx.layers import Linear, Weights, gelu


class Embeddings:
    """The sum of what a token, its position and (where there are such) segment 0 mean."""

    def __init__(self, sizes: PostNorm, weights: Weights, *, segments: int) -> None:
        size = sizes.hidden_size
        self._padding_id = sizes.padding_id
        self._words = weights.embedding("embeddings.word_embeddings", sizes.vocab_size, size)
        self._positions = weights.embedding(
            "embeddings.position_embeddings", sizes.max_position_embeddings, size
        )
        self._segments = (
            weights.embedding("embeddings.token_type_embeddings", segments, size)
            if segments
            else None
        )
        self._norm = weights.layer_norm("embeddings.LayerNorm", size, sizes.layer_norm_eps)

    def __call__(self, token_ids: mx.array) -> mx.array:
        """Embed: `(B, T)` int32 -> `(B, T, D)`."""
        x = self._words.rows(token_ids) + self._positions.rows(self._count(token_ids))
        if self._segments:
            x = x + self._segments.rows(mx.array([0]))  # (1, D)
        return self._norm(x)

    def _count(self, token_ids: mx.array) -> mx.array:
        """Return the positions: `(B, T)` -> `(T,)` or `(B, T)`; see `PostNorm.padding_id`."""
        if self._padding_id is None:
            return mx.arange(token_ids.shape[1])
        counted = (token_ids != self._padding_id).astype(mx.int32)
        return mx.cumsum(counted, axis=1) * counted + self._padding_id


class Layer:
    """Attention, then two linear layers, each added to its input and normalized."""

    def __init__(self, sizes: PostNorm, weights: Weights, name: str) -> None:
        size, wide, eps = sizes.hidden_size, sizes.intermediate_size, sizes.layer_norm_eps
        self._heads = sizes.num_attention_heads
        self._scale = sizes.head_size**-0.5
        self._query = weights.linear(f"{name}.attention.self.query", size, size)
        self._key = weights.linear(f"{name}.attention.self.key", size, size)
        self._value = weights.linear(f"{name}.attention.self.value", size, size)
        self._attended = weights.linear(f"{name}.attention.output.dense", size, size)
        self._attention_norm = weights.layer_norm(f"{name}.attention.output.LayerNorm", size, eps)
        self._widen = weights.linear(f"{name}.intermediate.dense", wide, size)
        self._narrow = weights.linear(f"{name}.output.dense", size, wide)
        self._norm = weights.layer_norm(f"{name}.output.LayerNorm", size, eps)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """Apply: `(B, T, D)` stays.

        `mask` broadcasts to `(B, H, T, T)`, query by key: bool, or numbers to add to the scores.
        """
        x = self._attention_norm(x + self._attended(self._attend(x, mask)))
        return self._norm(x + self._narrow(gelu(self._widen(x))))

    def _attend(self, x: mx.array, mask: mx.array) -> mx.array:
        """Let each token look at those of its text that the mask shows it."""

        def split(layer: Linear) -> mx.array:
            return layer(x).reshape(*x.shape[:2], self._heads, -1).swapaxes(1, 2)  # (B, H, T, S)

        attended = mx.fast.scaled_dot_product_attention(
            split(self._query), split(self._key), split(self._value), scale=self._scale, mask=mask
        )
        return attended.swapaxes(1, 2).reshape(x.shape)  # (B, H, T, S) -> (B, T, D)


def layers(sizes: PostNorm, weights: Weights) -> list[Layer]:
    """Return all layers, from the first to the last."""
    count = sizes.num_hidden_layers
    return [Layer(sizes, weights, f"encoder.layer.{index}") for index in range(count)]
