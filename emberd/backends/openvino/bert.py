"""BERT, RoBERTa and XLM-RoBERTa as OpenVINO operations; see `architectures.bert` for the sources.

Shapes in comments: R rows of W tokens, D hidden size.
"""

from openvino import Node

from emberd.backends.architectures.bert import Bert
from emberd.backends.openvino.graph import Batch, Weights
from emberd.backends.openvino.post_norm import embed, layers, under


def encode(bert: Bert, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    x = embed(bert, weights, batch, token_types=bert.type_vocab_size)
    return layers(bert, weights, x, under(batch.same_text()))
