"""Sparse vectors as OpenVINO operations; see `backends.sparse` for the sources.

The scores of a token are as many as the vocabulary has entries, so they never exist all at once: a
few thousand entries at a time are scored, and only the largest score of each text is kept.

Shapes in comments: R rows of W tokens, D hidden size, G groups of tokens, N texts, V entries.
"""

import numpy as np
from openvino import Node
from openvino import opset16 as op

from emberd.backends.openvino.graph import Weights, activate, integers, whole
from emberd.backends.rows import GROUP
from emberd.backends.sparse import MaskedLM, SparseHead, TokenWeights

ENTRIES = 2048  # scored at once: for 8,192 tokens, 64 MiB


def encode(
    head: SparseHead, weights: Weights, tokens: Node, token_ids: Node, places: Node, texts: Node
) -> Node:
    """Return sparse vectors, with their zeros: `(R, W, D)` -> `(N, V)`, float32.

    `places` and `texts` are those of pooling `max`; see `rows.Rows`.
    """
    flat = op.reshape(tokens, integers(-1, head.hidden_size), special_zero=False)
    grouped = op.gather(flat, places, whole(0))  # (GROUP * G, D)
    if isinstance(head, TokenWeights):
        return _weigh(head, weights, grouped, _grouped_ids(token_ids, places), texts)
    return _score(head, weights, grouped, texts)


def _score(head: MaskedLM, weights: Weights, x: Node, texts: Node) -> Node:
    """Score every entry: `(GROUP * G, D)` -> `(N, V)`."""
    size, entries = head.hidden_size, head.vocab_size
    x = weights.linear(x, head.dense, size, size, bias=head.dense_bias)
    x = activate(x, head.activation)
    x = weights.layer_norm(x, head.norm, size, head.norm_eps, bias=head.norm_bias)
    cuts = range(ENTRIES, entries, ENTRIES)
    largest = [
        _largest_of_texts(scores, part, texts)
        for part, scores in _parts(weights.products(x, head.decoder, entries, size, cuts), head)
    ]
    bias = next((name for name in head.bias if weights.has(name)), None)
    if bias:
        shifts = weights.parts(bias, entries, cuts)
        largest = [op.add(*each) for each in zip(largest, shifts, strict=True)]
    scores = op.relu(op.concat(largest, 1) if len(largest) > 1 else largest[0])
    # The largest of a NaN and a number is the number, so that a NaN would pass for a vector.
    total = op.reduce_sum(x, integers(0, 1))
    scores = op.add(scores, op.subtract(total, total))
    for _ in range(head.logs):
        scores = op.log(op.add(scores, op.constant(np.float32(1))))
    return scores


def _parts(products: list[Node], head: MaskedLM) -> list[tuple[int, Node]]:
    """Return each part's number of entries and its scores."""
    starts = range(0, head.vocab_size, ENTRIES)
    return [
        (min(ENTRIES, head.vocab_size - start), product)
        for start, product in zip(starts, products, strict=True)
    ]


def _largest_of_texts(scores: Node, entries: int, texts: Node) -> Node:
    """Keep each text's largest: `(GROUP * G, entries)` -> `(N, entries)`."""
    grouped = op.reshape(scores, integers(GROUP, -1, entries), special_zero=False)
    return op.segment_max(op.reduce_max(grouped, whole(0)), texts, fill_mode="ZERO")


def _grouped_ids(token_ids: Node, places: Node) -> Node:
    """Return the id of each token: `(R, W)` -> `(GROUP * G,)`."""
    return op.gather(op.reshape(token_ids, integers(-1), special_zero=False), places, whole(0))


def _weigh(head: TokenWeights, weights: Weights, x: Node, ids: Node, texts: Node) -> Node:
    """Put each token's weight where its own entry is: `(GROUP * G, D)` -> `(N, V)`."""
    found = op.relu(weights.linear(x, head.name, 1, head.hidden_size))
    found = op.reshape(found, integers(-1), special_zero=False)
    texts_of = op.tile(texts, integers(GROUP))
    places = op.add(op.multiply(texts_of, whole(head.vocab_size)), ids)
    counts = op.add(op.reduce_max(texts, whole(0), keep_dims=True), whole(1))  # (1,)
    shape = op.multiply(counts, whole(head.vocab_size))
    nothing = op.broadcast(op.constant(np.float32(0)), shape)
    largest = op.scatter_elements_update(
        nothing, places, found, whole(0), reduction="max", use_init_val=True
    )
    vectors = op.reshape(largest, integers(-1, head.vocab_size), special_zero=False)
    used = np.ones(head.vocab_size, np.float32)
    used[list(head.unused)] = 0
    return op.multiply(vectors, op.constant(used))
