"""BERT, RoBERTa and XLM-RoBERTa in MLX; see `architecture.Bert` for the sources.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architecture import Bert
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.post_norm import Embeddings, layers


class BertModel:
    """Embeddings and a stack of layers; all texts are in segment 0."""

    def __init__(self, bert: Bert, weights: Weights) -> None:
        self._embed = Embeddings(bert, weights, segments=bert.type_vocab_size)
        self._layers = layers(bert, weights)

    def __call__(self, token_ids: mx.array, mask: mx.array) -> mx.array:
        """Return the token vectors: both `(B, T)` int32 -> `(B, T, D)`."""
        x = self._embed(token_ids)
        # Never false for a whole row, whose softmax would be NaN: padding looks at tokens, too.
        seen = (mask != 0)[:, None, None, :]  # (B, 1, 1, T)
        for layer in self._layers:
            x = layer(x, seen)
        return x
