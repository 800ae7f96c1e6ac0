"""MPNet as OpenVINO operations.

Source: arXiv:2004.09297, with the relative positions of 1910.10683, section 2.1.
Shapes in comments: B texts, T tokens, D hidden size, H heads, M the most tokens of a text.
"""

import numpy as np
from openvino import Node
from openvino import opset14 as op

from emberd.backends.architecture import MPNet
from emberd.backends.openvino.graph import Weights, borrowed, integers, places, whole
from emberd.backends.openvino.post_norm import embed, layers
from emberd.backends.relative_positions import BUCKETS, buckets


def encode(mpnet: MPNet, weights: Weights, token_ids: Node, mask: Node) -> Node:
    """Return the token vectors: `(B, T)` twice -> `(B, T, D)`."""
    # Never -inf for a whole row, whose softmax would be NaN: padding looks at tokens, too.
    seen = op.not_equal(op.unsqueeze(mask, integers(1, 2)), whole(0))  # (B, 1, 1, T)
    bias = op.select(seen, _bias(mpnet, weights, token_ids), op.constant(np.float32(-np.inf)))
    x = embed(mpnet, weights, token_ids, segments=0)
    return layers(mpnet, weights, x, bias)  # bias is (B, H, T, T)


def _bias(mpnet: MPNet, weights: Weights, token_ids: Node) -> Node:
    """Return what the distance of two tokens adds to their score: `(H, T, T)`, query by key.

    One constant for all layers and lengths, of which a text uses the first corner.
    """
    place = np.arange(mpnet.max_tokens)
    bucket = buckets(place[None, :] - place[:, None])  # (M, M): key - query
    heads = mpnet.num_attention_heads
    table = weights.embedding("encoder.relative_attention_bias", BUCKETS, heads)
    longest = np.ascontiguousarray(table[bucket].transpose(2, 0, 1))  # (H, M, M)
    used = places(token_ids)
    rows = op.gather(borrowed(longest), used, whole(1))
    return op.gather(rows, used, whole(2))
