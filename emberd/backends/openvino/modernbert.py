"""ModernBERT as OpenVINO operations. Source: arXiv:2412.13663.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.modernbert import ModernBert
from emberd.backends.openvino.attention import Attend, Rotary, split_heads
from emberd.backends.openvino.graph import Batch, Weights, gated
from emberd.backends.openvino.layer_kinds import of_each_layer


def encode(bert: ModernBert, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    x = weights.look_up(
        batch.token_ids, "embeddings.tok_embeddings", bert.vocab_size, bert.hidden_size
    )
    x = _norm(bert, weights, x, "embeddings.norm")
    kinds = of_each_layer(
        bert.kinds, batch, bert.num_attention_heads, bert.head_size, bert.max_tokens
    )
    for index, (attend, rotary) in enumerate(kinds):
        name = f"layers.{index}"
        normal = _norm(bert, weights, x, f"{name}.attn_norm") if index else x
        attended = _attention(bert, weights, f"{name}.attn", normal, attend, rotary)
        x = op.add(x, attended)
        normal = _norm(bert, weights, x, f"{name}.mlp_norm")
        x = op.add(x, _feed_forward(bert, weights, f"{name}.mlp", normal))
    return _norm(bert, weights, x, "final_norm")


def _norm(bert: ModernBert, weights: Weights, x: Node, name: str) -> Node:
    return weights.layer_norm(x, name, bert.hidden_size, bert.norm_eps, bias=False)


def _attention(
    bert: ModernBert, weights: Weights, name: str, x: Node, attend: Attend, rotary: Rotary
) -> Node:
    """Attention as this layer attends: `(R, W, D)` stays."""
    size = bert.hidden_size
    query, key, value = (
        split_heads(projected, bert.num_attention_heads, bert.head_size)
        for projected in weights.linears(x, f"{name}.Wqkv", size, size, count=3)
    )
    attended = attend(rotary.turn(query), rotary.turn(key), value)
    return weights.linear(attended, f"{name}.Wo", size, size, bias=False)


def _feed_forward(bert: ModernBert, weights: Weights, name: str, x: Node) -> Node:
    """The feed-forward: `(R, W, D)` stays."""
    size, wide = bert.hidden_size, bert.intermediate_size
    return gated(
        x,
        lambda x: weights.linears(x, f"{name}.Wi", wide, size, count=2),
        bert.activation,
        lambda x: weights.linear(x, f"{name}.Wo", size, wide, bias=False),
    )
