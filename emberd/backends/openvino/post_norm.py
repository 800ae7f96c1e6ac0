"""What BERT, RoBERTa, MPNet and DeBERTa share, as OpenVINO operations.

Source: arXiv:1706.03762, section 3.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from collections.abc import Callable

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.post_norm import PostNorm
from emberd.backends.openvino.attention import attend, split_heads
from emberd.backends.openvino.graph import Batch, Weights, activate, borrowed, whole

Attending = Callable[[str, Node, Node, Node], Node]
"""How layers attend: the layer's name, query, key, value, `(R, H, W, S)` -> `(R, W, D)`."""


def embed(sizes: PostNorm, weights: Weights, batch: Batch, *, token_types: int) -> Node:
    """Sum the embeddings of a token, its position and, if there are token types, its type.

    Returns `(R, W, D)`.
    """
    size = sizes.hidden_size
    words = weights.look_up(batch.token_ids, "embeddings.word_embeddings", sizes.vocab_size, size)
    table = weights.embedding("embeddings.position_embeddings", sizes.max_position_embeddings, size)
    types = batch.types if token_types > 1 else None
    if token_types and types is None:
        # All tokens are of type 0, so its vector can be added to the position table.
        first = weights.embedding("embeddings.token_type_embeddings", token_types, size)[0]
        table = table + first
    x = op.add(words, op.gather(borrowed(table), batch.positions, whole(0)))
    if types is not None:
        name = "embeddings.token_type_embeddings"
        x = op.add(x, weights.look_up(types, name, token_types, size))
    return weights.layer_norm(x, "embeddings.LayerNorm", size, sizes.layer_norm_eps)


def under(mask: Node) -> Attending:
    """Attend under a mask that is the same in all layers.

    It broadcasts to `(R, H, W, W)`, query by key: bool, or numbers to add to the scores.
    """
    return lambda _, query, key, value: attend(query, key, value, mask)


def layers(sizes: PostNorm, weights: Weights, x: Node, attending: Attending) -> Node:
    """Apply all layers: `(R, W, D)` stays."""
    for index in range(sizes.num_hidden_layers):
        x = _layer(sizes, weights, f"encoder.layer.{index}", x, attending)
    return x


def _layer(sizes: PostNorm, weights: Weights, name: str, x: Node, attending: Attending) -> Node:
    """Attention, then two linear layers, each added to its input and normalized."""
    size, wide, eps = sizes.hidden_size, sizes.intermediate_size, sizes.layer_norm_eps
    attended = _attention(sizes, weights, f"{name}.attention.self", x, attending)
    attended = weights.linear(attended, f"{name}.attention.output.dense", size, size)
    x = weights.layer_norm(op.add(x, attended), f"{name}.attention.output.LayerNorm", size, eps)
    widened = weights.linear(x, f"{name}.intermediate.dense", wide, size)
    widened = activate(widened, sizes.activation)
    narrow = weights.linear(widened, f"{name}.output.dense", size, wide)
    return weights.layer_norm(op.add(x, narrow), f"{name}.output.LayerNorm", size, eps)


def _attention(sizes: PostNorm, weights: Weights, name: str, x: Node, attending: Attending) -> Node:
    """Attention: `(R, W, D)` stays."""
    size = sizes.hidden_size

    def project(which: str) -> Node:
        projected = weights.linear(x, f"{name}.{which}", size, size)
        return split_heads(projected, sizes.num_attention_heads, sizes.head_size)

    return attending(name, project("query"), project("key"), project("value"))
