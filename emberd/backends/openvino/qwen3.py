"""Qwen 3 as OpenVINO operations; see `architectures.qwen3` for the sources.

Shapes in comments: R rows of W tokens, D hidden size.
"""

from functools import partial

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.qwen3 import Qwen3
from emberd.backends.openvino.attention import Rotary, attend
from emberd.backends.openvino.decoder import Blocks
from emberd.backends.openvino.graph import Batch, Weights


def encode(qwen: Qwen3, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    blocks = Blocks(qwen, weights)
    causal = partial(attend, mask=batch.before())
    rotary = Rotary(batch.positions, qwen.head_size, qwen.theta, qwen.max_tokens)
    x = blocks.embed(batch)
    for name in (f"layers.{index}" for index in range(qwen.num_hidden_layers)):
        normal = blocks.norm(x, f"{name}.input_layernorm")
        x = op.add(x, blocks.attention(normal, f"{name}.self_attn", causal, rotary))
        normal = blocks.norm(x, f"{name}.post_attention_layernorm")
        x = op.add(x, blocks.feed_forward(normal, f"{name}.mlp"))
    return blocks.norm(x, "norm")
