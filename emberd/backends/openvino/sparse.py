"""Sparse vectors as OpenVINO operations; see `backends.sparse` for the sources.

The scores of a token are as many as the vocabulary has entries, so they never exist all at once:
512 tokens are scored at a time, in a loop, and of these only the largest of each group are kept.
(Without the loop, the engine has memory for all of them: it reuses little between the parts of a
graph whose shapes vary.)

Shapes in comments: R rows of W tokens, D hidden size, K blocks of B groups of M tokens, N texts,
V entries.
"""

import numpy as np
from openvino import Model, Node
from openvino import opset16 as op

from emberd.backends.openvino.graph import Weights, activate, integers, whole
from emberd.backends.sparse import MaskedLM, SparseHead, TokenWeights

LOWEST = np.float32(-1e38)  # any score is more
ENTRIES = 2048  # in one product: one of 30,522 columns takes longer


def encode(
    head: SparseHead, weights: Weights, tokens: Node, token_ids: Node, places: Node, texts: Node
) -> Node:
    """Return sparse vectors, with their zeros: `(R, W, D)` -> `(N, V)`, float32.

    `places` and `texts` are those of pooling `max`; see `rows.Rows`.
    """
    flat = op.reshape(tokens, integers(-1, head.hidden_size), special_zero=False)
    grouped = op.gather(flat, places, whole(0))  # (K, M, B, D)
    if isinstance(head, TokenWeights):
        ids = op.gather(op.reshape(token_ids, integers(-1), special_zero=False), places, whole(0))
        return _weigh(head, weights, grouped, ids, texts)
    return _score(head, weights, grouped, texts)


def _score(head: MaskedLM, weights: Weights, x: Node, texts: Node) -> Node:
    """Score every entry: `(K, M, B, D)` -> `(N, V)`."""
    size, entries = head.hidden_size, head.vocab_size
    x = weights.linear(x, head.dense, size, size, bias=head.dense_bias)
    x = activate(x, head.activation)
    x = weights.layer_norm(x, head.norm, size, head.norm_eps, bias=head.norm_bias)
    of_groups = _largest_of_groups(head, weights, x)
    lowest = op.broadcast(
        op.constant(LOWEST),
        op.concat([_count(texts), op.constant(np.array([entries], np.int32))], 0),
    )
    # row by row; SegmentMax would take ten times as long
    scores = op.scatter_nd_update(lowest, op.unsqueeze(texts, whole(1)), of_groups, "max")
    bias = next((name for name in head.bias if weights.has(name)), None)
    if bias:
        scores = op.add(scores, weights.vector(bias, entries))
    scores = op.relu(scores)
    for _ in range(head.logs):
        scores = op.log(op.add(scores, op.constant(np.float32(1))))
    # The largest of a NaN and a number is the number, so that a NaN would pass for a vector.
    total = op.reduce_sum(x, integers(0, 1, 2, 3))
    return op.add(scores, op.subtract(total, total))


def _largest_of_groups(head: MaskedLM, weights: Weights, x: Node) -> Node:
    """Score block by block, and keep each group's largest: `(K, M, B, D)` -> `(K * B, V)`."""
    size, entries = head.hidden_size, head.vocab_size
    block = op.parameter([1, -1, -1, size], np.float32)
    cuts = range(ENTRIES, entries, ENTRIES)
    products = weights.products(op.squeeze(block, whole(0)), head.decoder, entries, size, cuts)
    largest = [op.reduce_max(scores, whole(0)) for scores in products]
    kept = op.concat(largest, 1) if len(largest) > 1 else largest[0]  # (B, V)
    body = Model([op.unsqueeze(kept, whole(0))], [block], "block")
    loop = op.tensor_iterator()
    loop.set_body(body)
    loop.set_sliced_input(block, x.output(0), 0, 1, 1, -1, 0)
    of_blocks = loop.get_concatenated_slices(body.get_results()[0].output(0), 0, 1, 1, -1, 0)
    return op.reshape(of_blocks, integers(-1, entries), special_zero=False)


def _weigh(head: TokenWeights, weights: Weights, x: Node, ids: Node, texts: Node) -> Node:
    """Put each token's weight where its own entry is: `(K, M, B, D)` -> `(N, V)`."""
    flat = integers(-1)
    found = op.relu(weights.linear(x, head.name, 1, head.hidden_size))
    found = op.reshape(found, flat, special_zero=False)
    # (K, 1, B), as the text of a group is that of each of its tokens
    shape = op.concat([op.gather(op.shape_of(ids), integers(0), whole(0)), integers(1, -1)], 0)
    firsts = op.multiply(op.reshape(texts, shape, special_zero=False), whole(head.vocab_size))
    places = op.reshape(op.add(ids, firsts), flat, special_zero=False)
    counts = op.add(op.reduce_max(texts, whole(0), keep_dims=True), whole(1))  # (1,)
    nothing = op.broadcast(op.constant(np.float32(0)), op.multiply(counts, whole(head.vocab_size)))
    largest = op.scatter_elements_update(
        nothing, places, found, whole(0), reduction="max", use_init_val=True
    )
    vectors = op.reshape(largest, integers(-1, head.vocab_size), special_zero=False)
    used = np.ones(head.vocab_size, np.float32)
    used[list(head.unused)] = 0
    return op.multiply(vectors, op.constant(used))


def _count(texts: Node) -> Node:
    """Return how many texts there are: `(1,)` int32."""
    return op.add(op.reduce_max(texts, whole(0), keep_dims=True), whole(1))
