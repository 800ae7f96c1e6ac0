"""MPNet as OpenVINO operations.

Source: arXiv:2004.09297, with the relative positions of 1910.10683, section 2.1.
Shapes in comments: R rows of W tokens, D hidden size.
"""

from openvino import Node

from emberd.backends.architectures.mpnet import MPNet
from emberd.backends.openvino.attention import bias_by_distance
from emberd.backends.openvino.graph import Batch, Weights
from emberd.backends.openvino.post_norm import embed, layers, under
from emberd.backends.relative_positions import BUCKETS


def encode(mpnet: MPNet, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    heads = mpnet.num_attention_heads
    table = weights.embedding("encoder.relative_attention_bias", BUCKETS, heads)
    x = embed(mpnet, weights, batch, token_types=0)
    return layers(mpnet, weights, x, under(bias_by_distance(table, mpnet.max_tokens, batch)))
