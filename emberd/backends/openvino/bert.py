"""BERT, RoBERTa and XLM-RoBERTa as OpenVINO operations; see `architecture.Bert` for the sources.

Shapes in comments: B texts, T tokens, D hidden size.
"""

from openvino import Node
from openvino import opset14 as op

from emberd.backends.architecture import Bert
from emberd.backends.openvino.graph import Weights, integers, whole
from emberd.backends.openvino.post_norm import embed, layers


def encode(bert: Bert, weights: Weights, token_ids: Node, mask: Node) -> Node:
    """Return the token vectors: `(B, T)` twice -> `(B, T, D)`. All texts are in segment 0."""
    seen = op.not_equal(op.unsqueeze(mask, integers(1, 2)), whole(0))  # (B, 1, 1, T)
    x = embed(bert, weights, token_ids, segments=bert.type_vocab_size)
    return layers(bert, weights, x, seen)
