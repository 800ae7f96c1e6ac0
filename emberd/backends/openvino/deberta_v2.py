"""DeBERTa as OpenVINO operations; see `architectures.deberta_v2` for the sources.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size, P vectors of distances.
"""

import numpy as np
from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.deberta_v2 import DebertaV2
from emberd.backends.openvino.attention import attend
from emberd.backends.openvino.graph import Batch, Weights, borrowed, integers, whole
from emberd.backends.openvino.post_norm import layers
from emberd.vectors import Matrix


def encode(deberta: DebertaV2, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    size, eps = deberta.hidden_size, deberta.layer_norm_eps
    words = weights.look_up(batch.token_ids, "embeddings.word_embeddings", deberta.vocab_size, size)
    x = weights.layer_norm(words, "embeddings.LayerNorm", size, eps)
    return layers(deberta, weights, x, Disentangled(deberta, weights, batch).attend)


class Disentangled:
    """Attention whose scores also have a part of query and distance, and of distance and key.

    Distances are the same for texts further on in a packed row. Each of the two parts is computed
    for every distance in a row, and then moved so that those of a query stand under its keys.
    """

    def __init__(self, deberta: DebertaV2, weights: Weights, batch: Batch) -> None:
        """Say which distances there are, once for all layers; see `graph.Batch` for `batch`."""
        self._deberta = deberta
        self._weights = weights
        self._table = _normalized(deberta, weights)
        self._same_text = batch.same_text()
        self._width = op.gather(op.shape_of(batch.token_ids), integers(1), whole(0))  # (1,)
        # In a row of W tokens, key - query (or the reverse) is from 1 - W to W: 2 * W distances.
        longest = deberta.max_tokens
        apart = np.arange(1 - longest, longest + 1)
        first = op.subtract(integers(longest), self._width)
        last = op.add(first, op.add(self._width, self._width))

        def used(rows: np.ndarray) -> Node:
            return op.slice(op.constant(rows), first, last, integers(1), integers(0))

        self._of_queries = used(deberta.rows(-apart))  # (2 * W,): rows of the table
        self._of_keys = used(deberta.rows(apart))

    def attend(self, name: str, query: Node, key: Node, value: Node) -> Node:
        """Attend and join the heads: three `(R, H, W, S)` -> `(R, W, D)`."""
        queries, keys = (self._projected(f"{name}.{each}") for each in ("query", "key"))
        of_queries = self._moved(query, op.gather(keys, self._of_queries, whole(1)))
        of_keys = self._moved(key, op.gather(queries, self._of_keys, whole(1)))
        bias = op.add(of_queries, op.transpose(of_keys, integers(0, 1, 3, 2)))
        bias = op.select(self._same_text, bias, op.constant(np.float32(-np.inf)))
        return attend(query, key, value, bias, self._deberta.attention_scale)

    def _projected(self, name: str) -> Node:
        """Return what a layer makes of the table, scaled as scores are: `(H, P, S)`."""
        deberta, size = self._deberta, self._deberta.hidden_size
        weight = self._weights.embedding(name, size, size)
        made = self._table @ weight.T + self._weights.numbers(f"{name}.bias", size)
        made *= np.float32(deberta.attention_scale)
        heads = made.reshape(-1, deberta.num_attention_heads, deberta.head_size)
        return borrowed(np.ascontiguousarray(heads.transpose(1, 0, 2)))

    def _moved(self, x: Node, by_distance: Node) -> Node:
        """Multiply tokens by their distances' vectors: `(R, H, W, S)`, `(H, 2 * W, S)` -> scores.

        The product has a column for each distance. Cut into rows that are one shorter, each begins
        one distance further left: those of token i to the tokens 0, 1, ... are `(R, H, W, W)`.
        """
        product = op.matmul(x, by_distance, transpose_a=False, transpose_b=True)  # (R, H, W, 2W)
        flat = op.reshape(product, integers(0, 0, -1), special_zero=True)
        begin = op.subtract(self._width, integers(1))
        shorter = op.add(self._width, begin)  # 2 * W - 1
        end = op.add(begin, op.multiply(self._width, shorter))
        flat = op.slice(flat, begin, end, integers(1), integers(2))
        shape = op.concat([integers(0, 0), self._width, shorter], 0)
        moved = op.reshape(flat, shape, special_zero=True)
        return op.slice(moved, integers(0), self._width, integers(1), integers(3))


def _normalized(deberta: DebertaV2, weights: Weights) -> Matrix:
    """Return the table of distances after its layer norm: `(2 * span, D)`."""
    size = deberta.hidden_size
    table = weights.embedding("encoder.rel_embeddings", 2 * deberta.span, size)
    centred = table - table.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + deberta.layer_norm_eps)
    scale, shift = (
        weights.numbers(f"encoder.LayerNorm.{each}", size) for each in ("weight", "bias")
    )
    normalized: Matrix = (centred / spread * scale + shift).astype(np.float32)
    return normalized
