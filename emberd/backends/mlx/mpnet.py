"""MPNet in MLX. Source: arXiv:2004.09297, with the relative positions of 1910.10683, section 2.1.

Shapes in comments: B texts, T tokens, D hidden size, H heads, M the most tokens of a text.
"""

import mlx.core as mx

from emberd.backends.architectures.mpnet import MPNet
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.mlx.post_norm import Embeddings, Layers
from emberd.backends.relative_positions import BUCKETS, distance_buckets


class Encoder:
    """Embeddings and a stack of layers with relative positions."""

    def __init__(self, mpnet: MPNet, weights: Weights) -> None:
        self._embed = Embeddings(mpnet, weights, segments=0)
        self._layers = Layers(mpnet, weights)
        heads = mpnet.num_attention_heads
        table = weights.embedding("encoder.relative_attention_bias", BUCKETS, heads)
        # The bias of each distance from 1 - M to M - 1 for each head: (2M - 1, H).
        self._by_distance = table.rows(mx.array(distance_buckets(mpnet.max_tokens)))
        self._farthest = mpnet.max_tokens - 1

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._embed(batch.token_ids, batch.positions)
        place = mx.arange(batch.token_ids.shape[1])
        distances = place[None, :] - place[:, None]  # (T, T): key - query
        # Contiguous, as attention reads that fastest: (1, H, T, T), with a mask (B, H, T, T).
        bias = mx.contiguous(self._by_distance[distances + self._farthest].transpose(2, 0, 1))[None]
        unseen = batch.unseen(x.dtype)
        return self._layers(x, bias if unseen is None else bias + unseen)
