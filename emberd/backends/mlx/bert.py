"""BERT, RoBERTa and XLM-RoBERTa in MLX; see `architectures.bert` for the sources.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architectures.bert import Bert
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.mlx.post_norm import Embeddings, Layers, under


class Encoder:
    """Embeddings and a stack of layers."""

    def __init__(self, bert: Bert, weights: Weights) -> None:
        self._embed = Embeddings(bert, weights, token_types=bert.type_vocab_size)
        self._layers = Layers(bert, weights)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._embed(batch)
        return self._layers(x, under(batch.unseen(x.dtype)))
