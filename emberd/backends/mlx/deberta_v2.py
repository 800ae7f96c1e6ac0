"""DeBERTa in MLX; see `architectures.deberta_v2` for the sources.

Shapes in comments: B rows of T tokens, D hidden size, H heads, S head size, P vectors of distances.
"""

import mlx.core as mx
import numpy as np

from emberd.backends.architectures.deberta_v2 import DebertaV2
from emberd.backends.mlx.attention import attend, split_heads
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.mlx.post_norm import Attending, Layers


class Encoder:
    """Embeddings of tokens and a stack of layers, all of which know the same distances."""

    def __init__(self, deberta: DebertaV2, weights: Weights) -> None:
        size, eps = deberta.hidden_size, deberta.layer_norm_eps
        self._words = weights.embedding("embeddings.word_embeddings", deberta.vocab_size, size)
        self._norm = weights.layer_norm("embeddings.LayerNorm", size, eps)
        self._layers = Layers(deberta, weights)
        self._scale = deberta.attention_scale
        self._distances = _of_distances(deberta, weights)
        # the row of the table for each query - key, from 1 - longest to longest - 1
        self._farthest = deberta.max_tokens - 1
        apart = np.arange(-self._farthest, self._farthest + 1)
        self._rows = mx.array(deberta.rows(apart))

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._norm(self._words.rows(batch.token_ids))
        return self._layers(x, self._attending(batch, x.dtype))

    def _attending(self, batch: Packed, dtype: mx.Dtype) -> Attending:
        """Return the attention within each text, to which distances add two parts of the scores."""
        rows = self._rows[self._farthest - batch.distances()][None, None]  # (1, 1, T, T)
        unseen = batch.unseen(dtype)

        def disentangled(
            index: int, query: mx.array, key: mx.array, value: mx.array
        ) -> mx.array:  # fmt: skip
            queries, keys = self._distances[index]
            of_queries = mx.take_along_axis(query @ keys, rows, axis=-1)
            of_keys = mx.take_along_axis(key @ queries, rows.swapaxes(2, 3), axis=-1)
            bias = (of_queries + of_keys.swapaxes(2, 3)) * self._scale
            bias = bias if unseen is None else bias + unseen
            return attend(query, key, value, bias, self._scale)

        return disentangled


def _of_distances(deberta: DebertaV2, weights: Weights) -> list[tuple[mx.array, mx.array]]:
    """Return what queries and keys the distances have in each layer: two `(1, H, S, P)`."""
    size, heads = deberta.hidden_size, deberta.num_attention_heads
    table = weights.embedding("encoder.rel_embeddings", 2 * deberta.span, size)
    norm = weights.layer_norm("encoder.LayerNorm", size, deberta.layer_norm_eps)
    vectors = norm(table.rows(mx.arange(2 * deberta.span)))[None]  # (1, P, D)

    def projected(name: str) -> mx.array:
        made = split_heads(weights.linear(name, size, size)(vectors), heads)
        return mx.contiguous(made.swapaxes(2, 3))

    found = []
    for index in range(deberta.num_hidden_layers):
        first, second = (
            projected(f"encoder.layer.{index}.attention.self.{each}") for each in ("query", "key")
        )
        mx.eval(first, second)
        found.append((first, second))
    return found
