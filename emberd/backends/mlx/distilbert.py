"""DistilBERT in MLX; see `architectures.distilbert` for the source.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architectures.distilbert import DistilBert
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.mlx.post_norm import Embeddings, Layers, under


class Encoder:
    """Embeddings and a stack of layers, without segments."""

    def __init__(self, distilbert: DistilBert, weights: Weights) -> None:
        self._embed = Embeddings(distilbert, weights, token_types=0)
        self._layers = Layers(distilbert, weights)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._embed(batch)
        return self._layers(x, under(batch.unseen(x.dtype)))
