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

MOST_AT_ONCE = 512  # so many tokens of a row attend with all heads at once
_QUERIES = 256  # in wider rows, so many do, head by head


class Alibi:
    """Lets tokens attend within their texts; a score loses the head's slope for each token between.

    What is added to the scores takes `R * H * W * W` numbers, which in a row of 8,192 tokens would
    be gigabytes. So each wide row attends head by head, in blocks of queries. Either way has
    nothing to do in the other's case: one has no queries then, the other no heads.
    """

    def __init__(self, slopes: Sequence[float], batch: Batch) -> None:
        """Take the slope of each head."""
        heads = len(slopes)
        rows, tokens = (_size(batch.segments, axis) for axis in (0, 1))
        at_once = op.less_equal(tokens, integers(MOST_AT_ONCE))
        self._slopes = op.constant(np.array(slopes, np.float32).reshape(1, heads, 1, 1))
        self._segments = batch.segments
        self._queries = op.broadcast(
            batch.queries, op.shape_of(batch.segments), broadcast_spec="BIDIRECTIONAL"
        )
        self._some_queries = op.select(at_once, tokens, integers(0))
        self._some_heads = op.select(at_once, integers(0), integers(heads))
        self._rest = op.concat([rows, op.subtract(tokens, self._some_queries)], 0)
        columns = columns_of(batch.segments)
        self._bias = _bias(
            _first(columns, self._some_queries, 0),
            _first(self._queries, self._some_queries, 1),
            batch.segments,
            self._slopes,
        )

    def attend(self, query: Node, key: Node, value: Node) -> Node:
        """Attend and join the heads: three `(R, H, W, S)` -> `(R, W, H * S)`."""
        together = attend(_first(query, self._some_queries, 2), key, value, self._bias)
        given = (query, key, value, self._slopes)
        by_head = _by_head(self._some_heads, given, self._queries, self._segments)
        shape = query.get_output_partial_shape(0)
        size = integers(shape[1].get_length() * shape[3].get_length())
        by_head = _first(by_head, self._some_heads, 1)  # none of what an earlier batch left there
        by_head = op.reshape(
            op.transpose(by_head, integers(0, 2, 1, 3)),
            op.concat([self._rest, size], 0),
            special_zero=False,
        )
        return op.concat([together, by_head], 1)


def _by_head(heads: Node, given: Sequence[Node], queries: Node, segments: Node) -> Node:
    """Attend head by head: three `(R, H, W, S)`, slopes `(1, H, 1, 1)` -> `(R, H, W, S)`.

    `heads` is how many, `(1,)` int64: all, or none.
    """
    body = _head(given, segments)
    loop = op.loop(heads, op.constant(np.array([True])))
    loop.set_function(body)
    loop.set_special_body_ports([-1, 0])
    *inner, inner_queries, inner_segments = body.get_parameters()
    for parameter, node in zip(inner, given, strict=True):
        loop.set_sliced_input(parameter, node.output(0), 0, 1, 1, -1, 1)
    loop.set_invariant_input(inner_queries, queries.output(0))
    loop.set_invariant_input(inner_segments, segments.output(0))
    attended = body.results[1].output(0)
    return loop.get_concatenated_slices(attended, 0, 1, 1, -1, 1).get_node()


def _head(given: Sequence[Node], segments: Node) -> Model:
    """Return one head's graph: what `_by_head` takes, with one head -> `(R, 1, W, S)`."""
    inputs = [*map(_one, given), _same(segments), _same(segments)]
    tokens = _size(inputs[-1], 1)
    blocks = op.divide(op.add(tokens, integers(_QUERIES - 1)), integers(_QUERIES))
    body = _block(inputs)
    loop = op.loop(blocks, op.constant(np.array([True])))
    loop.set_function(body)
    loop.set_special_body_ports([0, 0])
    for parameter, node in zip(body.get_parameters()[1:], inputs, strict=True):
        loop.set_invariant_input(parameter, node.output(0))
    attended = body.results[1].output(0)
    joined = loop.get_concatenated_slices(attended, 0, 1, 1, -1, 2).get_node()
    size = integers(inputs[0].get_output_partial_shape(0)[3].get_length())
    shape = op.concat([_size(inputs[-1], 0), integers(1, -1), size], 0)
    joined = op.reshape(joined, shape, special_zero=False)
    return Model([op.constant(np.array([True])), _first(joined, tokens, 2)], inputs)


def _block(given: Sequence[Node]) -> Model:
    """Return the graph of a block: its number, and what its head has -> true, `(R, 1, 1, Q, S)`.

    The last block repeats the last token, as all must be of one size.
    """
    block = op.parameter([1], np.int64)
    query, key, value, slope, queries, segments = inputs = [_same(each) for each in given]
    last = op.gather(columns_of(segments), whole(-1), whole(0))
    first = op.multiply(op.convert(block, "i32"), whole(_QUERIES))
    places = op.add(first, op.constant(np.arange(_QUERIES, dtype=np.int32)))
    places = op.minimum(places, last)  # (Q,)
    bias = _bias(places, op.gather(queries, places, whole(1)), segments, slope)
    some = op.gather(query, places, whole(2))
    attended = op.scaled_dot_product_attention(some, key, value, bias)
    return Model(
        [op.constant(np.array([True])), op.unsqueeze(attended, whole(2))], [block, *inputs]
    )


def _bias(places: Node, queries: Node, segments: Node, slopes: Node) -> Node:
    """Return what to add to the scores, -inf elsewhere than within a text: `(R, H, Q, W)`.

    Of some queries, `places` `(Q,)` says in which columns they are, `queries` `(R, Q)` in which
    texts. `slopes` are `(1, H, 1, 1)`.
    """
    columns = op.unsqueeze(columns_of(segments), whole(0))
    distances = op.abs(op.subtract(columns, op.unsqueeze(places, whole(1))))  # (Q, W)
    same = op.equal(op.unsqueeze(queries, integers(1, 3)), op.unsqueeze(segments, integers(1, 2)))
    distances = op.convert(op.negative(distances), "f32")
    distances = op.select(same, distances, op.constant(np.float32(-np.inf)))  # (R, 1, Q, W)
    return op.multiply(distances, slopes)


def _first(x: Node, count: Node, axis: int) -> Node:
    """Return the first of the numbers on an axis; `count` is `(1,)` int64."""
    return op.slice(x, integers(0), count, integers(1), integers(axis))


def _size(x: Node, axis: int) -> Node:
    """Return the length of an axis, `(1,)` int64."""
    return op.gather(op.shape_of(x), integers(axis), whole(0))


def _same(node: Node) -> Node:
    """Return an input of another graph, of the same type and shape."""
    return op.parameter(node.get_output_partial_shape(0), node.get_output_element_type(0))


def _one(node: Node) -> Node:
    """Return the same, but for one head."""
    shape = node.get_output_partial_shape(0)
    shape[1] = 1
    return op.parameter(shape, node.get_output_element_type(0))
