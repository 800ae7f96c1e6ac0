"""BERT as an OpenVINO graph. Source: arXiv:1810.04805, section 3, with the layers of 1706.03762.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import numpy as np
from openvino import Model, Node
from openvino import opset14 as op

from emberd.backends.architecture import Bert
from emberd.backends.base import Pooling
from emberd.backends.openvino.graph import Weights, borrowed, integers, pool, whole


def build(bert: Bert, weights: Weights, pooling: Pooling) -> Model:
    """Return the model: token ids and mask, both `(B, T)` int32 -> `(B, D)` float32."""
    token_ids = op.parameter([-1, -1], np.int32, name="token_ids")
    mask = op.parameter([-1, -1], np.int32, name="mask")
    seen = op.not_equal(op.unsqueeze(mask, integers(1, 2)), whole(0))  # (B, 1, 1, T)
    x = _embed(bert, weights, token_ids)
    for index in range(bert.num_hidden_layers):
        x = _layer(bert, weights, f"encoder.layer.{index}", x, seen)
    return Model([pool(x, mask, pooling)], [token_ids, mask], "bert")


def _embed(bert: Bert, weights: Weights, token_ids: Node) -> Node:
    """Sum what a token, its position and the one segment mean: `(B, T)` -> `(B, T, D)`."""
    size = bert.hidden_size
    words = weights.embedding("embeddings.word_embeddings", bert.vocab_size, size)
    positions = weights.embedding(
        "embeddings.position_embeddings", bert.max_position_embeddings, size
    )
    segments = weights.embedding("embeddings.token_type_embeddings", bert.type_vocab_size, size)
    length = op.gather(op.shape_of(token_ids, "i32"), whole(1), whole(0))
    numbers = op.range(whole(0), length, whole(1), "i32")  # (T,)
    # All texts are in segment 0, so that its vector can be part of the position's.
    positions = positions + segments[0]
    x = op.add(
        op.gather(borrowed(words), token_ids, whole(0)),
        op.gather(borrowed(positions), numbers, whole(0)),
    )
    return weights.layer_norm(x, "embeddings.LayerNorm", size, bert.layer_norm_eps)


def _layer(bert: Bert, weights: Weights, name: str, x: Node, seen: Node) -> Node:
    """Attention, then two linear layers, each added to its input and normalized."""
    size, eps = bert.hidden_size, bert.layer_norm_eps
    attended = _attention(bert, weights, f"{name}.attention.self", x, seen)
    attended = weights.linear(attended, f"{name}.attention.output.dense", size, size)
    x = weights.layer_norm(op.add(x, attended), f"{name}.attention.output.LayerNorm", size, eps)
    wide = weights.linear(x, f"{name}.intermediate.dense", bert.intermediate_size, size)
    narrow = weights.linear(
        op.gelu(wide, "erf"), f"{name}.output.dense", size, bert.intermediate_size
    )
    return weights.layer_norm(op.add(x, narrow), f"{name}.output.LayerNorm", size, eps)


def _attention(bert: Bert, weights: Weights, name: str, x: Node, seen: Node) -> Node:
    """Let each token look at the `seen` ones of its text: `(B, T, D)` -> `(B, T, D)`."""
    size = bert.hidden_size
    heads = integers(0, 0, bert.num_attention_heads, bert.head_size)  # 0 keeps an axis

    def project(which: str) -> Node:
        projected = weights.linear(x, f"{name}.{which}", size, size)
        split = op.reshape(projected, heads, special_zero=True)  # (B, T, H, S)
        return op.transpose(split, integers(0, 2, 1, 3))  # (B, H, T, S)

    attended = op.scaled_dot_product_attention(
        project("query"), project("key"), project("value"), seen
    )
    together = op.transpose(attended, integers(0, 2, 1, 3))  # (B, T, H, S)
    return op.reshape(together, integers(0, 0, size), special_zero=True)
