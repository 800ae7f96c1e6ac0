"""Attention with linear biases (ALiBi) to both sides, whose memory grows with the text alone.

Sources: arXiv:2108.12409; for both sides, 2310.19923, section 4.1. Shapes in comments: R rows of W
tokens, H heads, S head size, Q queries.
"""

from collections.abc import Sequence

import numpy as np
from openvino import Model, Node
from openvino import opset15 as op

from emberd.backends.openvino.attention import attend
from emberd.backends.openvino.graph import Batch, columns_of, integers, whole

MOST_QUERIES = 128  # so many of a text attend at once


class Alibi:
    """Lets tokens attend within their texts; a score loses the head's slope for each token between.

    What is added to the scores takes `R * H * Q * W` numbers, which for a whole text of 8,192
    tokens would be gigabytes. So longer texts attend in blocks of their queries, one after the
    other; a loop takes a while to begin, so shorter ones do without.
    """

    def __init__(self, slopes: Sequence[float], batch: Batch) -> None:
        """Take the slope of each head."""
        self._slopes = np.array(slopes, np.float32).reshape(-1, 1, 1)
        self._segments = batch.segments
        self._queries = op.broadcast(
            batch.queries, op.shape_of(batch.segments), broadcast_spec="BIDIRECTIONAL"
        )
        tokens = op.gather(op.shape_of(batch.segments, "i32"), whole(1), whole(0))
        self._is_short = op.less_equal(tokens, whole(MOST_QUERIES))
        blocks = op.divide(op.add(tokens, whole(MOST_QUERIES - 1)), whole(MOST_QUERIES))
        self._blocks = op.range(whole(0), blocks, whole(1), "i32")
        self._tokens = op.unsqueeze(tokens, whole(0))

    def attend(self, query: Node, key: Node, value: Node) -> Node:
        """Attend and join the heads: three `(R, H, W, S)` -> `(R, W, H * S)`."""
        given = (query, key, value, self._queries, self._segments)
        short, long = self._at_once(given), self._in_blocks(given)
        choice = op.if_op(self._is_short.output(0))
        choice.set_then_body(short)
        choice.set_else_body(long)
        for node, one, other in zip(
            (*given, self._blocks, self._tokens),
            (*short.get_parameters(), None, None),
            long.get_parameters(),
            strict=True,
        ):
            choice.set_input(node.output(0), one, other)
        return choice.set_output(short.results[0], long.results[0]).get_node()

    def _at_once(self, given: Sequence[Node]) -> Model:
        """Return the graph for short texts: `given` -> `(R, W, H * S)`."""
        query, key, value, queries, segments = inputs = _inputs(given)
        bias = self._bias(columns_of(segments), queries, segments)
        return Model([attend(query, key, value, bias)], list(inputs))

    def _in_blocks(self, given: Sequence[Node]) -> Model:
        """Return the graph for long texts: `given`, the blocks' numbers, W -> `(R, W, H * S)`."""
        inputs = _inputs(given)
        blocks, tokens = op.parameter([-1], np.int32), op.parameter([1], np.int32)
        block, body = self._block(given)
        loop = op.tensor_iterator()
        loop.set_body(body)
        loop.set_sliced_input(block, blocks.output(0), 0, 1, 1, -1, 0)
        for inner, outer in zip(body.get_parameters()[1:], inputs, strict=True):
            loop.set_invariant_input(inner, outer.output(0))
        attended = loop.get_concatenated_slices(
            body.results[0].output(0), 0, MOST_QUERIES, MOST_QUERIES, -1, 1
        )
        attended = op.slice(attended, integers(0), tokens, integers(1), integers(1))
        return Model([attended], [*inputs, blocks, tokens])

    def _block(self, given: Sequence[Node]) -> tuple[Node, Model]:
        """Return a block's number, `(1,)`, and its graph: this and `given` -> `(R, Q, H * S)`.

        The last block repeats the last token, as all must be of one size.
        """
        block = op.parameter([1], np.int32)
        query, key, value, queries, segments = inputs = _inputs(given)
        last = op.gather(columns_of(segments), whole(-1), whole(0))
        first = op.multiply(block, whole(MOST_QUERIES))
        places = op.add(first, op.constant(np.arange(MOST_QUERIES, dtype=np.int32)))
        places = op.minimum(places, last)  # (Q,)
        bias = self._bias(places, op.gather(queries, places, whole(1)), segments)
        attended = attend(op.gather(query, places, whole(2)), key, value, bias)
        return block, Model([attended], [block, *inputs])

    def _bias(self, places: Node, queries: Node, segments: Node) -> Node:
        """Return what to add to the scores, -inf elsewhere than within a text: `(R, H, Q, W)`.

        Of some queries, `places` `(Q,)` says in which columns they are, `queries` `(R, Q)` in which
        texts.
        """
        columns = op.unsqueeze(columns_of(segments), whole(0))
        distances = op.abs(op.subtract(columns, op.unsqueeze(places, whole(1))))  # (Q, W)
        same = op.equal(
            op.unsqueeze(queries, integers(1, 3)), op.unsqueeze(segments, integers(1, 2))
        )
        distances = op.select(
            same, op.convert(distances, "f32"), op.constant(np.float32(np.inf))
        )  # (R, 1, Q, W)
        return op.multiply(distances, op.constant(-self._slopes))


def _inputs(given: Sequence[Node]) -> tuple[Node, ...]:
    """Return inputs of another graph, of the same types and shapes."""
    return tuple(
        op.parameter(node.get_output_partial_shape(0), node.get_output_element_type(0))
        for node in given
    )
