"""MPNet in MLX. Source: arXiv:2004.09297, with the relative positions of 1910.10683, section 2.1.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architectures.mpnet import MPNet
from emberd.backends.mlx.attention import DistanceBias
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.mlx.post_norm import Embeddings, Layers, under
from emberd.backends.relative_positions import BUCKETS


class Encoder:
    """Embeddings and a stack of layers with relative positions."""

    def __init__(self, mpnet: MPNet, weights: Weights) -> None:
        self._embed = Embeddings(mpnet, weights, token_types=0)
        self._layers = Layers(mpnet, weights)
        heads = mpnet.num_attention_heads
        table = weights.embedding("encoder.relative_attention_bias", BUCKETS, heads)
        self._bias = DistanceBias(table, mpnet.max_tokens)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._embed(batch)
        return self._layers(x, under(self._bias.of(batch, x.dtype)))
