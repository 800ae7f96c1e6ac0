"""What BERT, RoBERTa, MPNet and DeBERTa share, in MLX. Source: arXiv:1706.03762, section 3.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

from collections.abc import Callable

import mlx.core as mx

from emberd.backends.architectures.post_norm import PostNorm
from emberd.backends.mlx.attention import attend, split_projected
from emberd.backends.mlx.layers import ACTIVATIONS, Weights
from emberd.backends.mlx.packed import Packed

Attending = Callable[[int, mx.array, mx.array, mx.array], mx.array]
"""How layers attend: the layer's number, query, key, value, `(B, H, T, S)` -> `(B, T, D)`."""


class Embeddings:
    """The sum of the embeddings of a token, its position and, if there are any, its type."""

    def __init__(self, sizes: PostNorm, weights: Weights, *, token_types: int) -> None:
        size = sizes.hidden_size
        self._words = weights.embedding("embeddings.word_embeddings", sizes.vocab_size, size)
        self._positions = weights.embedding(
            "embeddings.position_embeddings", sizes.max_position_embeddings, size
        )
        self._types, self._are_several = None, token_types > 1
        if token_types:
            name = "embeddings.token_type_embeddings"
            self._types = weights.embedding(name, token_types, size)
        self._norm = weights.layer_norm("embeddings.LayerNorm", size, sizes.layer_norm_eps)

    def __call__(self, batch: Packed) -> mx.array:
        """Embed: `(B, T, D)`. Without pairs of texts, all tokens are of type 0."""
        x = self._words.rows(batch.token_ids) + self._positions.rows(batch.positions)
        if self._types is not None:
            of_pairs = batch.types if self._are_several else None
            x = x + self._types.rows(mx.array([0]) if of_pairs is None else of_pairs)
        return self._norm(x)


def under(unseen: mx.array | None) -> Attending:
    """Attend with the same numbers added to the scores of all layers.

    They broadcast to `(B, H, T, T)`, query by key.
    """
    return lambda _, query, key, value: attend(query, key, value, unseen, key.shape[-1] ** -0.5)


class Layer:
    """Attention, then two linear layers, each added to its input and normalized."""

    def __init__(self, sizes: PostNorm, weights: Weights, index: int) -> None:
        size, wide, eps = sizes.hidden_size, sizes.intermediate_size, sizes.layer_norm_eps
        name = f"encoder.layer.{index}"
        self._index = index
        self._heads = sizes.num_attention_heads
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._projected = weights.stacked(parts, size, size)
        self._attended = weights.linear(f"{name}.attention.output.dense", size, size)
        self._attention_norm = weights.layer_norm(f"{name}.attention.output.LayerNorm", size, eps)
        self._activate = ACTIVATIONS[sizes.activation]
        self._widen = weights.linear(f"{name}.intermediate.dense", wide, size)
        self._narrow = weights.linear(f"{name}.output.dense", size, wide)
        self._norm = weights.layer_norm(f"{name}.output.LayerNorm", size, eps)

    def __call__(self, x: mx.array, attending: Attending) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        query, key, value = split_projected(self._projected(x), self._heads)
        attended = attending(self._index, query, key, value)
        x = self._attention_norm(x + self._attended(attended))
        return self._norm(x + self._narrow(self._activate(self._widen(x))))


class Layers:
    """All layers, from the first to the last."""

    def __init__(self, sizes: PostNorm, weights: Weights) -> None:
        count = sizes.num_hidden_layers
        self._layers = [Layer(sizes, weights, index) for index in range(count)]

    def __call__(self, x: mx.array, attending: Attending) -> mx.array:
        """Apply them in turn; see `Layer`."""
        for layer in self._layers:
            x = layer(x, attending)
            # let a GPU begin while the CPU still builds the rest of the graph
            mx.async_eval(x)  # type: ignore[no-untyped-call]
        return x
