"""Attention to what is near, as OpenVINO operations: a block of queries sees only the keys around.

Shapes in comments: R rows of W tokens, H heads, S head size, N blocks of B queries and K keys.
Source: arXiv:2004.05150, section 3.1, where it is the sliding window.
"""

from openvino import Node
from openvino import opset15 as op

from emberd.backends.openvino.attention import attention, join_heads
from emberd.backends.openvino.graph import Batch, integers, whole

FEWEST_QUERIES = 128  # in a block; smaller products are slower than the scores they save


class Near:
    """Attention up to `most` tokens away within a text, for rows of any width.

    Time and memory grow with the width, not with its square. A row in which all blocks together
    would see no less than everything is a single block.
    """

    def __init__(self, batch: Batch, most: int, heads: int) -> None:
        """Say who sees whom, once for all layers; see `graph.Batch` for `batch`."""
        block = max(FEWEST_QUERIES, most)
        width = op.gather(op.shape_of(batch.token_ids, "i32"), whole(1), whole(0))
        is_wide = op.greater(width, whole(block + 2 * most))
        queries = op.select(is_wide, whole(block), width)  # B
        beside = op.select(is_wide, whole(most), whole(0))  # how far keys go beyond the queries
        keys = op.add(queries, op.add(beside, beside))  # K
        first = op.range(whole(0), width, queries, "i32")  # (N,): where each block begins
        last = op.subtract(width, whole(1))

        query = op.range(whole(0), queries, whole(1), "i32")  # (B,), from where its block begins
        key = op.subtract(op.range(whole(0), keys, whole(1), "i32"), beside)  # (K,), the same
        place = op.add(op.unsqueeze(first, whole(1)), op.unsqueeze(query, whole(0)))  # (N, B)
        self._queries = op.minimum(place, last)
        place = op.add(op.unsqueeze(first, whole(1)), op.unsqueeze(key, whole(0)))  # (N, K)
        self._keys = op.minimum(op.maximum(place, whole(0)), last)
        exists = op.equal(place, self._keys)

        distance = op.subtract(op.unsqueeze(key, whole(0)), op.unsqueeze(query, whole(1)))  # (B, K)
        same_text = op.equal(
            op.unsqueeze(op.gather(batch.segments, self._queries, whole(1)), whole(3)),
            op.unsqueeze(op.gather(batch.segments, self._keys, whole(1)), whole(2)),
        )  # (R, N, B, K)
        seen = op.logical_and(same_text, op.unsqueeze(exists, whole(1)))
        seen = op.logical_and(seen, op.less_equal(op.abs(distance), whole(most)))
        # Every token sees itself: the softmax over nothing would be NaN.
        seen = op.logical_or(seen, op.equal(distance, whole(0)))
        for_each_head = op.broadcast(
            op.unsqueeze(seen, whole(1)),
            integers(1, heads, 1, 1, 1),
            broadcast_spec="BIDIRECTIONAL",
        )  # (R, H, N, B, K)
        self._block, self._around = _length(queries), _length(keys)
        self._width = _length(width)
        self._mask = op.reshape(
            for_each_head,
            op.concat([integers(0, -1), self._block, self._around], 0),
            special_zero=True,
        )  # (R, H * N, B, K)

    def attend(self, query: Node, key: Node, value: Node, *, scale: float | None = None) -> Node:
        """Attend and join the heads: three `(R, H, W, S)` -> `(R, W, H * S)`.

        Blocks count as heads, so that OpenVINO makes a single operation of it, as elsewhere.
        """
        shape = query.get_output_partial_shape(0)
        heads, size = shape[1].get_length(), shape[3].get_length()

        def blocks(x: Node, places: Node, length: Node) -> Node:
            parts = op.gather(x, places, whole(2))  # (R, H, N, B or K, S)
            merged = op.concat([integers(0, -1), length, integers(size)], 0)
            return op.reshape(parts, merged, special_zero=True)

        attended = attention(
            blocks(query, self._queries, self._block),
            blocks(key, self._keys, self._around),
            blocks(value, self._keys, self._around),
            self._mask,
            scale,
        )  # (R, H * N, B, S)
        rows = op.reshape(attended, integers(0, heads, -1, size), special_zero=True)
        return join_heads(op.slice(rows, integers(0), self._width, integers(1), integers(2)))


def _length(number: Node) -> Node:
    """Return a number as a part of a shape: `()` -> `(1,)` int64."""
    return op.unsqueeze(op.convert(number, "i64"), whole(0))
