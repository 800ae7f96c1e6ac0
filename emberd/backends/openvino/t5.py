"""T5's encoder as OpenVINO operations; see `architectures.t5` for the sources.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.t5 import T5
from emberd.backends.openvino.attention import attend, bias_by_distance, split_heads
from emberd.backends.openvino.graph import Batch, Weights, activate, gated
from emberd.backends.relative_positions import BUCKETS

FIRST = "block.0.layer.0.SelfAttention.relative_attention_bias"


def encode(t5: T5, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    table = weights.embedding(FIRST, BUCKETS, t5.num_heads)
    bias = bias_by_distance(table, t5.max_tokens, batch)  # (R, H, W, W)
    x = weights.look_up(batch.token_ids, "shared", t5.vocab_size, t5.hidden_size)
    for index in range(t5.num_layers):
        name = f"block.{index}.layer"
        x = op.add(x, _attention(t5, weights, f"{name}.0", x, bias))
        x = op.add(x, _feed_forward(t5, weights, f"{name}.1", x))
    return weights.rms_norm(x, "final_layer_norm", t5.hidden_size, t5.eps)


def _attention(t5: T5, weights: Weights, name: str, x: Node, bias: Node) -> Node:
    """Attention with a bias for each distance: `(R, W, D)` stays."""
    size, heads = t5.hidden_size, t5.num_heads * t5.head_size
    x = weights.rms_norm(x, f"{name}.layer_norm", size, t5.eps)

    def project(which: str) -> Node:
        projected = weights.linear(x, f"{name}.SelfAttention.{which}", heads, size, bias=False)
        return split_heads(projected, t5.num_heads, t5.head_size)

    attended = attend(project("q"), project("k"), project("v"), bias, scale=1.0)
    return weights.linear(attended, f"{name}.SelfAttention.o", size, heads, bias=False)


def _feed_forward(t5: T5, weights: Weights, name: str, x: Node) -> Node:
    """Two linear layers, or three: `(R, W, D)` stays."""
    size, wide = t5.hidden_size, t5.intermediate_size
    x = weights.rms_norm(x, f"{name}.layer_norm", size, t5.eps)

    def linear(x: Node, which: str, outputs: int, inputs: int) -> Node:
        return weights.linear(x, f"{name}.DenseReluDense.{which}", outputs, inputs, bias=False)

    if t5.is_gated:
        return gated(
            x,
            lambda x: (linear(x, "wi_0", wide, size), linear(x, "wi_1", wide, size)),
            t5.activation,
            lambda x: linear(x, "wo", size, wide),
        )
    return linear(activate(linear(x, "wi", wide, size), t5.activation), "wo", size, wide)
