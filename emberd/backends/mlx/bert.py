"""BERT in MLX. Source: arXiv:1810.04805, section 3, with the layers of 1706.03762.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architecture import Bert
from emberd.backends.mlx.layers import Linear, Weights, gelu


class BertModel:
    """Embeddings and a stack of layers; all texts are in segment 0."""

    def __init__(self, bert: Bert, weights: Weights) -> None:
        size = bert.hidden_size
        self._words = weights.embedding("embeddings.word_embeddings", bert.vocab_size, size)
        self._positions = weights.embedding(
            "embeddings.position_embeddings", bert.max_position_embeddings, size
        )
        self._segments = weights.embedding(
            "embeddings.token_type_embeddings", bert.type_vocab_size, size
        )
        self._norm = weights.layer_norm("embeddings.LayerNorm", size, bert.layer_norm_eps)
        self._layers = [
            _Layer(bert, weights, f"encoder.layer.{index}")
            for index in range(bert.num_hidden_layers)
        ]

    def __call__(self, token_ids: mx.array, mask: mx.array) -> mx.array:
        """Return the token vectors: both `(B, T)` int32 -> `(B, T, D)`."""
        positions = self._positions.rows(mx.arange(token_ids.shape[1]))  # (T, D)
        segment = self._segments.rows(mx.array([0]))  # (1, D)
        x = self._norm(self._words.rows(token_ids) + positions + segment)
        # Never false for a whole row, whose softmax would be NaN: padding looks at tokens, too.
        seen = (mask != 0)[:, None, None, :]  # (B, 1, 1, T)
        for layer in self._layers:
            x = layer(x, seen)
        return x


class _Layer:
    """Attention, then two linear layers, each added to its input and normalized."""

    def __init__(self, bert: Bert, weights: Weights, name: str) -> None:
        size, wide, eps = bert.hidden_size, bert.intermediate_size, bert.layer_norm_eps
        self._heads = bert.num_attention_heads
        self._scale = bert.head_size**-0.5
        self._query = weights.linear(f"{name}.attention.self.query", size, size)
        self._key = weights.linear(f"{name}.attention.self.key", size, size)
        self._value = weights.linear(f"{name}.attention.self.value", size, size)
        self._attended = weights.linear(f"{name}.attention.output.dense", size, size)
        self._attention_norm = weights.layer_norm(f"{name}.attention.output.LayerNorm", size, eps)
        self._widen = weights.linear(f"{name}.intermediate.dense", wide, size)
        self._narrow = weights.linear(f"{name}.output.dense", size, wide)
        self._norm = weights.layer_norm(f"{name}.output.LayerNorm", size, eps)

    def __call__(self, x: mx.array, seen: mx.array) -> mx.array:
        """Apply: `(B, T, D)`, `(B, 1, 1, T)` -> `(B, T, D)`."""
        x = self._attention_norm(x + self._attended(self._attend(x, seen)))
        return self._norm(x + self._narrow(gelu(self._widen(x))))

    def _attend(self, x: mx.array, seen: mx.array) -> mx.array:
        """Let each token look at the `seen` ones of its text: `(B, T, D)` -> `(B, T, D)`."""

        def split(layer: Linear) -> mx.array:
            return layer(x).reshape(*x.shape[:2], self._heads, -1).swapaxes(1, 2)  # (B, H, T, S)

        attended = mx.fast.scaled_dot_product_attention(
            split(self._query), split(self._key), split(self._value), scale=self._scale, mask=seen
        )
        return attended.swapaxes(1, 2).reshape(x.shape)  # (B, H, T, S) -> (B, T, D)
