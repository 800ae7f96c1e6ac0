"""JinaBERT in MLX; see `architectures.jina_bert` for the sources.

Shapes in comments: B rows of T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architectures.jina_bert import JinaBert
from emberd.backends.mlx.attention import Alibi, split_heads
from emberd.backends.mlx.layers import ACTIVATIONS, LayerNorm, Linear, Weights
from emberd.backends.mlx.packed import Packed


class Encoder:
    """Embeddings of tokens, all of type 0, and a stack of layers."""

    def __init__(self, bert: JinaBert, weights: Weights) -> None:
        size = bert.hidden_size
        self._words = weights.embedding("embeddings.word_embeddings", bert.vocab_size, size)
        types = bert.type_vocab_size
        table = weights.embedding("embeddings.token_type_embeddings", types, size)
        self._type = table.rows(mx.array([0]))  # (1, D)
        self._norm = weights.layer_norm("embeddings.LayerNorm", size, bert.layer_norm_eps)
        self._slopes = bert.slopes
        names = [f"encoder.layer.{index}" for index in range(bert.num_hidden_layers)]
        self._layers = [Layer(bert, weights, name) for name in names]

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._norm(self._words.rows(batch.token_ids) + self._type)
        alibi = Alibi(self._slopes, batch, x.dtype)
        for layer in self._layers:
            x = layer(x, alibi)
            # let a GPU begin while the CPU still builds the rest of the graph
            mx.async_eval(x)  # type: ignore[no-untyped-call]
        return x


class Layer:
    """Attention, then a gated feed-forward layer, each added to its input and normalized."""

    def __init__(self, bert: JinaBert, weights: Weights, name: str) -> None:
        size, wide, eps = bert.hidden_size, bert.intermediate_size, bert.layer_norm_eps
        attention = f"{name}.attention.self"
        self._heads = bert.num_attention_heads
        self._scale = bert.head_size**-0.5
        parts = [f"{attention}.{part}" for part in ("query", "key", "value")]
        self._projected = weights.stacked(parts, size, size)
        self._norms: list[LayerNorm] = []
        self._second_norm: LayerNorm | None = None
        if weights.has(f"{name}.{bert.NORMED}.weight"):
            norms = [f"{attention}.layer_norm_{part}" for part in "qk"]
            self._norms = [weights.layer_norm(norm, size, eps) for norm in norms]
            self._second_norm = weights.layer_norm(f"{name}.layer_norm_1", size, eps)
        self._attended = weights.linear(f"{name}.attention.output.dense", size, size)
        self._attention_norm = weights.layer_norm(f"{name}.attention.output.LayerNorm", size, eps)
        self._gate_is_first = not weights.has(f"{name}.{bert.GATE_SECOND}.weight")
        gate = bert.GATE_FIRST if self._gate_is_first else bert.GATE_SECOND
        self._widen = weights.linear(f"{name}.{gate}", 2 * wide, size, bias=False)
        self._activate = ACTIVATIONS[bert.activation]
        self._narrow: Linear = weights.linear(f"{name}.mlp.down_layer", size, wide)
        self._norm = weights.layer_norm(f"{name}.layer_norm_2", size, eps)

    def __call__(self, x: mx.array, alibi: Alibi) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        attended = self._attention_norm(x + self._attended(self._attend(x, alibi)))
        if self._second_norm:  # which adds the input once more
            attended = self._second_norm(x + attended)
        return self._norm(attended + self._feed_forward(attended))

    def _attend(self, x: mx.array, alibi: Alibi) -> mx.array:
        """Attention among the tokens of each text."""
        parts = mx.split(self._projected(x), 3, axis=-1)
        for index, norm in enumerate(self._norms):
            parts[index] = norm(parts[index])
        query, key, value = (split_heads(part, self._heads) for part in parts)
        return alibi.attend(query, key, value, self._scale)

    def _feed_forward(self, x: mx.array) -> mx.array:
        """Two linear layers with a gate between them."""
        first, second = mx.split(self._widen(x), 2, axis=-1)
        gate, values = (first, second) if self._gate_is_first else (second, first)
        return self._narrow(values * self._activate(gate))
