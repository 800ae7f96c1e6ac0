"""The blocks of today's decoders in MLX; see `architectures.decoder`.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architectures.decoder import Decoder
from emberd.backends.mlx.attention import Angles, attend, split_heads, turn
from emberd.backends.mlx.layers import ACTIVATIONS, RMSNorm, Weights


class Attention:
    """Attention with grouped heads; queries and keys are normalized before they are turned."""

    def __init__(self, sizes: Decoder, weights: Weights, name: str) -> None:
        size, head, scale = sizes.hidden_size, sizes.head_size, sizes.attention_scale
        self._heads, self._groups = sizes.num_attention_heads, sizes.num_key_value_heads
        self._scale = scale
        self._query, self._key, self._value = (
            weights.linear(f"{name}.{which}_proj", count * head, size, bias=False)
            for which, count in (("q", self._heads), ("k", self._groups), ("v", self._groups))
        )
        self._query_norm, self._key_norm = (
            norm(sizes, weights, f"{name}.{which}_norm", head) for which in "qk"
        )
        self._attended = weights.linear(f"{name}.o_proj", size, self._heads * head, bias=False)

    def __call__(self, x: mx.array, unseen: mx.array | None, angles: Angles) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        query = turn(self._query_norm(split_heads(self._query(x), self._heads)), angles)
        key = turn(self._key_norm(split_heads(self._key(x), self._groups)), angles)
        value = split_heads(self._value(x), self._groups)
        return self._attended(attend(query, key, value, unseen, self._scale))


class FeedForward:
    """Two linear layers with a gate between them."""

    def __init__(self, sizes: Decoder, weights: Weights, name: str) -> None:
        size, wide = sizes.hidden_size, sizes.intermediate_size
        self._activate = ACTIVATIONS[sizes.activation]
        self._gate = weights.linear(f"{name}.gate_proj", wide, size, bias=False)
        self._widen = weights.linear(f"{name}.up_proj", wide, size, bias=False)
        self._narrow = weights.linear(f"{name}.down_proj", size, wide, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        return self._narrow(self._activate(self._gate(x)) * self._widen(x))


def norm(sizes: Decoder, weights: Weights, name: str, size: int | None = None) -> RMSNorm:
    """Return a norm over `size` numbers; by default, over a token vector."""
    size = size or sizes.hidden_size
    return weights.rms_norm(name, size, sizes.rms_norm_eps, add_to_scale=sizes.add_to_scale)
