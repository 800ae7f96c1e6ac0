"""BERT with rotary positions and gates as OpenVINO operations; see `architectures.rotary_bert`.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.rotary_bert import RotaryBert
from emberd.backends.openvino.attention import Rotary, attend, split_heads
from emberd.backends.openvino.graph import Batch, Weights, borrowed, gated


def encode(bert: RotaryBert, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    size, eps = bert.hidden_size, bert.layer_norm_eps
    x = weights.look_up(batch.token_ids, "embeddings.word_embeddings", bert.vocab_size, size)
    if bert.type_vocab_size:  # all tokens are of type 0
        types = weights.embedding("embeddings.token_type_embeddings", bert.type_vocab_size, size)
        x = op.add(x, borrowed(types[0]))
    x = weights.layer_norm(x, "emb_ln", size, eps)
    rotary = Rotary(
        batch.positions, bert.head_size, bert.theta, bert.max_tokens, stretch=bert.stretch
    )
    mask = batch.same_text()
    for name in (f"encoder.layers.{index}" for index in range(bert.num_hidden_layers)):
        attended = _attention(bert, weights, f"{name}.attn", x, rotary, mask)
        x = weights.layer_norm(op.add(x, attended), f"{name}.norm1", size, eps)
        narrow = _feed_forward(bert, weights, f"{name}.mlp", x)
        x = weights.layer_norm(op.add(x, narrow), f"{name}.norm2", size, eps)
    return x


def _attention(
    bert: RotaryBert, weights: Weights, name: str, x: Node, rotary: Rotary, mask: Node
) -> Node:
    """Attention under the mask: `(R, W, D)` stays."""
    size = bert.hidden_size
    query, key, value = (
        split_heads(projected, bert.num_attention_heads, bert.head_size)
        for projected in _linears(weights, x, f"{name}.Wqkv", size, size, count=3)
    )
    attended = attend(rotary.turn(query), rotary.turn(key), value, mask)
    return _linear(weights, attended, f"{name}.out_proj", size, size)


def _feed_forward(bert: RotaryBert, weights: Weights, name: str, x: Node) -> Node:
    """Two linear layers with a gate between them: `(R, W, D)` stays. Source: arXiv:2002.05202."""
    size, wide = bert.hidden_size, bert.intermediate_size

    def widen(x: Node) -> tuple[Node, ...]:
        if bert.gate_is_stacked:
            values, gate = _linears(weights, x, f"{name}.fc1", wide, size, count=2)
        else:
            values = _linear(weights, x, f"{name}.fc11", wide, size)
            gate = _linear(weights, x, f"{name}.fc12", wide, size)
        return gate, values

    def narrow(x: Node) -> Node:
        return _linear(weights, x, f"{name}.fc2", size, wide)

    return gated(x, widen, bert.activation, narrow)


def _linear(weights: Weights, x: Node, name: str, outputs: int, inputs: int) -> Node:
    """Apply a layer, with its bias if there is one."""
    return weights.linear(x, name, outputs, inputs, bias=weights.has(f"{name}.bias"))


def _linears(
    weights: Weights, x: Node, name: str, outputs: int, inputs: int, *, count: int
) -> tuple[Node, ...]:
    """Apply several that are stored as one, with their biases if there are any."""
    bias = weights.has(f"{name}.bias")
    return weights.linears(x, name, outputs, inputs, count=count, bias=bias)
