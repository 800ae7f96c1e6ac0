"""JinaBERT as OpenVINO operations; see `architectures.jina_bert` for the sources.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.jina_bert import JinaBert
from emberd.backends.openvino.alibi import Alibi
from emberd.backends.openvino.attention import split_heads
from emberd.backends.openvino.graph import Batch, Weights, borrowed, gated


def encode(bert: JinaBert, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    size, eps = bert.hidden_size, bert.layer_norm_eps
    words = weights.look_up(batch.token_ids, "embeddings.word_embeddings", bert.vocab_size, size)
    types = weights.embedding("embeddings.token_type_embeddings", bert.type_vocab_size, size)
    x = op.add(words, borrowed(types[0]))  # all tokens are of type 0
    x = weights.layer_norm(x, "embeddings.LayerNorm", size, eps)
    alibi = Alibi(bert.slopes, batch)
    for name in (f"encoder.layer.{index}" for index in range(bert.num_hidden_layers)):
        x = _attention(bert, weights, name, x, alibi)
        narrow = _feed_forward(bert, weights, name, x)
        x = weights.layer_norm(op.add(x, narrow), f"{name}.layer_norm_2", size, eps)
    return x


def _attention(bert: JinaBert, weights: Weights, name: str, x: Node, alibi: Alibi) -> Node:
    """Attention, added to its input and normalized: `(R, W, D)` stays."""
    size, eps = bert.hidden_size, bert.layer_norm_eps
    normed = weights.has(f"{name}.{bert.NORMED}.weight")

    def project(which: str, norm: str = "") -> Node:
        part = weights.linear(x, f"{name}.attention.self.{which}", size, size)
        if norm and normed:
            part = weights.layer_norm(part, f"{name}.attention.self.{norm}", size, eps)
        return split_heads(part, bert.num_attention_heads, bert.head_size)

    attended = alibi.attend(
        project("query", "layer_norm_q"), project("key", "layer_norm_k"), project("value")
    )
    attended = weights.linear(attended, f"{name}.attention.output.dense", size, size)
    attended = weights.layer_norm(
        op.add(x, attended), f"{name}.attention.output.LayerNorm", size, eps
    )
    if normed:  # which adds the input once more
        attended = weights.layer_norm(op.add(x, attended), f"{name}.layer_norm_1", size, eps)
    return attended


def _feed_forward(bert: JinaBert, weights: Weights, name: str, x: Node) -> Node:
    """Two linear layers with a gate between them: `(R, W, D)` stays."""
    size, wide = bert.hidden_size, bert.intermediate_size

    def widen(x: Node) -> tuple[Node, ...]:
        if weights.has(f"{name}.{bert.GATE_SECOND}.weight"):
            values, gate = weights.linears(x, f"{name}.{bert.GATE_SECOND}", wide, size, count=2)
        else:
            gate, values = weights.linears(x, f"{name}.{bert.GATE_FIRST}", wide, size, count=2)
        return gate, values

    return gated(
        x,
        widen,
        bert.activation,
        lambda x: weights.linear(x, f"{name}.mlp.down_layer", size, wide),
    )
