"""Gemma 3 as OpenVINO operations; see `architectures.gemma3_text` for the sources.

Shapes in comments: R rows of W tokens, D hidden size.
"""

import numpy as np
from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.gemma3_text import Gemma3
from emberd.backends.openvino.decoder import Blocks
from emberd.backends.openvino.graph import Batch, Weights
from emberd.backends.openvino.layer_kinds import of_each_layer


def encode(gemma: Gemma3, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    blocks = Blocks(gemma, weights)
    kinds = of_each_layer(
        gemma.kinds, batch, gemma.num_attention_heads, gemma.head_size, gemma.max_tokens
    )
    x = op.multiply(blocks.embed(batch), op.constant(np.float32(gemma.hidden_size**0.5)))
    for index, (attend, rotary) in enumerate(kinds):
        name = f"layers.{index}"
        normal = blocks.norm(x, f"{name}.input_layernorm")
        attended = blocks.attention(normal, f"{name}.self_attn", attend, rotary)
        x = op.add(x, blocks.norm(attended, f"{name}.post_attention_layernorm"))
        normal = blocks.norm(x, f"{name}.pre_feedforward_layernorm")
        fed = blocks.feed_forward(normal, f"{name}.mlp")
        x = op.add(x, blocks.norm(fed, f"{name}.post_feedforward_layernorm"))
    return blocks.norm(x, "norm")
