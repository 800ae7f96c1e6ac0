"""BERT with rotary positions and gates in MLX; see `architectures.rotary_bert` for the sources.

Shapes in comments: B rows of T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architectures.rotary_bert import RotaryBert
from emberd.backends.mlx.attention import Angles, Rotary, attend, split_projected, turn
from emberd.backends.mlx.layers import ACTIVATIONS, Linear, Weights
from emberd.backends.mlx.packed import Packed


class Encoder:
    """Embeddings of tokens, all of type 0, and a stack of layers."""

    def __init__(self, bert: RotaryBert, weights: Weights) -> None:
        size = bert.hidden_size
        self._words = weights.embedding("embeddings.word_embeddings", bert.vocab_size, size)
        self._type = None
        if types := bert.type_vocab_size:
            table = weights.embedding("embeddings.token_type_embeddings", types, size)
            self._type = table.rows(mx.array([0]))  # (1, D)
        self._norm = weights.layer_norm("emb_ln", size, bert.layer_norm_eps)
        self._rotary = Rotary(bert.head_size, bert.theta, stretch=bert.stretch)
        names = [f"encoder.layers.{index}" for index in range(bert.num_hidden_layers)]
        self._layers = [Layer(bert, weights, name) for name in names]

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._words.rows(batch.token_ids)
        if self._type is not None:
            x = x + self._type
        x = self._norm(x)
        angles = self._rotary.at(batch.positions, x.dtype)
        unseen = batch.unseen(x.dtype)
        for layer in self._layers:
            x = layer(x, angles, unseen)
            # let a GPU begin while the CPU still builds the rest of the graph
            mx.async_eval(x)  # type: ignore[no-untyped-call]
        return x


class Layer:
    """Attention, then a gated feed-forward layer, each added to its input and normalized."""

    def __init__(self, bert: RotaryBert, weights: Weights, name: str) -> None:
        size, wide, eps = bert.hidden_size, bert.intermediate_size, bert.layer_norm_eps
        self._heads = bert.num_attention_heads
        self._scale = bert.head_size**-0.5
        self._projected = _linear(weights, f"{name}.attn.Wqkv", 3 * size, size)
        self._attended = _linear(weights, f"{name}.attn.out_proj", size, size)
        self._attention_norm = weights.layer_norm(f"{name}.norm1", size, eps)
        mlp = f"{name}.mlp"
        if bert.gate_is_stacked:
            self._widen = _linear(weights, f"{mlp}.fc1", 2 * wide, size)
        else:
            bias = weights.has(f"{mlp}.fc11.bias")
            self._widen = weights.stacked([f"{mlp}.fc11", f"{mlp}.fc12"], wide, size, bias=bias)
        self._activate = ACTIVATIONS[bert.activation]
        self._narrow = _linear(weights, f"{mlp}.fc2", size, wide)
        self._norm = weights.layer_norm(f"{name}.norm2", size, eps)

    def __call__(self, x: mx.array, angles: Angles, unseen: mx.array | None) -> mx.array:
        """Apply: `(B, T, D)` stays. `unseen` is added to the scores."""
        x = self._attention_norm(x + self._attended(self._attend(x, angles, unseen)))
        values, gate = mx.split(self._widen(x), 2, axis=-1)
        return self._norm(x + self._narrow(values * self._activate(gate)))

    def _attend(self, x: mx.array, angles: Angles, unseen: mx.array | None) -> mx.array:
        """Attention among the tokens of each text."""
        query, key, value = split_projected(self._projected(x), self._heads)
        return attend(turn(query, angles), turn(key, angles), value, unseen, self._scale)


def _linear(weights: Weights, name: str, outputs: int, inputs: int) -> Linear:
    """Return a layer, with its bias if there is one."""
    return weights.linear(name, outputs, inputs, bias=weights.has(f"{name}.bias"))
