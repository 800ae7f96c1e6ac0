"""DistilBERT as OpenVINO operations; see `architectures.distilbert` for the source.

Shapes in comments: R rows of W tokens, D hidden size.
"""

from openvino import Node

from emberd.backends.architectures.distilbert import DistilBert
from emberd.backends.openvino.graph import Batch, Weights
from emberd.backends.openvino.post_norm import embed, layers, under


def encode(distilbert: DistilBert, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    x = embed(distilbert, weights, batch, token_types=0)
    return layers(distilbert, weights, x, under(batch.same_text()))
