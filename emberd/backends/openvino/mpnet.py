"""MPNet as OpenVINO operations.

Source: arXiv:2004.09297, with the relative positions of 1910.10683, section 2.1.
Shapes in comments: R rows of W tokens, D hidden size, H heads, M the most tokens of a row.
"""

import numpy as np
from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.mpnet import MPNet
from emberd.backends.openvino.graph import Batch, Weights, borrowed, whole
from emberd.backends.openvino.post_norm import embed, layers
from emberd.backends.relative_positions import BUCKETS, buckets


def encode(mpnet: MPNet, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    bias = _bias(mpnet, weights, batch)
    bias = op.select(batch.same_text(), bias, op.constant(np.float32(-np.inf)))
    x = embed(mpnet, weights, batch, token_types=0)
    return layers(mpnet, weights, x, bias)  # bias is (R, H, W, W)


def _bias(mpnet: MPNet, weights: Weights, batch: Batch) -> Node:
    """Return the bias that depends on the distance of two tokens: `(H, W, W)`, query by key.

    One constant serves all layers and lengths; a batch uses its first rows and columns. Distances
    are the same for texts further on in a packed row.
    """
    place = np.arange(mpnet.max_tokens)
    bucket = buckets(place[None, :] - place[:, None])  # (M, M): key - query
    heads = mpnet.num_attention_heads
    table = weights.embedding("encoder.relative_attention_bias", BUCKETS, heads)
    longest = np.ascontiguousarray(table[bucket].transpose(2, 0, 1))  # (H, M, M)
    used = batch.columns()
    rows = op.gather(borrowed(longest), used, whole(1))
    return op.gather(rows, used, whole(2))
