"""BERT, RoBERTa and XLM-RoBERTa as OpenVINO operations; see `architecture.Bert` for the sources.

Shapes in comments: R rows of W tokens, D hidden size.
"""

from openvino import Node

from emberd.backends.architecture import Bert
from emberd.backends.openvino.graph import Weights
from emberd.backends.openvino.post_norm import embed, layers


def encode(bert: Bert, weights: Weights, token_ids: Node, positions: Node, seen: Node) -> Node:
    """Return the token vectors: `(R, W)` twice and the attention mask -> `(R, W, D)`."""
    x = embed(bert, weights, token_ids, positions, token_types=bert.type_vocab_size)
    return layers(bert, weights, x, seen)
