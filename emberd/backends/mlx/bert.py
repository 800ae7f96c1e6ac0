"""BERT, RoBERTa and XLM-RoBERTa in MLX; see `architecture.Bert` for the sources.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architecture import Bert
from emberd.backends.mlx.layers import Weights, unseen
from emberd.backends.mlx.post_norm import Embeddings, Layers


class BertModel:
    """Embeddings and a stack of layers; all texts are in segment 0."""

    def __init__(self, bert: Bert, weights: Weights) -> None:
        self._embed = Embeddings(bert, weights, segments=bert.type_vocab_size)
        self._layers = Layers(bert, weights)

    def __call__(self, token_ids: mx.array, mask: mx.array | None) -> mx.array:
        """Return the token vectors: both `(B, T)` int32 -> `(B, T, D)`; no mask: no padding."""
        x = self._embed(token_ids)
        return self._layers(x, None if mask is None else unseen(mask, x.dtype))
