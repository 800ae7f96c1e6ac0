"""ModernBERT in MLX. Source: arXiv:2412.13663.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx

from emberd.backends.architectures.modernbert import ModernBert
from emberd.backends.mlx.attention import Angles, attend, split_projected, turn
from emberd.backends.mlx.layer_kinds import Kinds
from emberd.backends.mlx.layers import ACTIVATIONS, LayerNorm, Weights
from emberd.backends.mlx.packed import Packed


class Encoder:
    """Embeddings and a stack of pre-norm layers, some global and the others local."""

    def __init__(self, bert: ModernBert, weights: Weights) -> None:
        self._words = weights.embedding(
            "embeddings.tok_embeddings", bert.vocab_size, bert.hidden_size
        )
        self._embedding_norm = _norm(bert, weights, "embeddings.norm")
        self._layers = [_Layer(bert, weights, index) for index in range(bert.num_hidden_layers)]
        self._norm = _norm(bert, weights, "final_norm")
        self._kinds = Kinds(bert.kinds, bert.head_size)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        x = self._embedding_norm(self._words.rows(batch.token_ids))
        kinds = self._kinds.of(batch, x.dtype)
        for layer, (unseen, angles) in zip(self._layers, kinds, strict=True):
            x = layer(x, unseen, angles)
            mx.async_eval(x)  # type: ignore[no-untyped-call]  # as in `post_norm.Layers`
        return self._norm(x)


class _Layer:
    """Attention, then a gated feed-forward, each applied to a norm of its input and added to it.

    The first layer's attention has no norm: the embeddings are normalized already.
    """

    def __init__(self, bert: ModernBert, weights: Weights, index: int) -> None:
        name, size, wide = f"layers.{index}", bert.hidden_size, bert.intermediate_size
        self._heads = bert.num_attention_heads
        self._scale = bert.head_size**-0.5
        self._attention_norm = _norm(bert, weights, f"{name}.attn_norm") if index else None
        self._projected = weights.linear(f"{name}.attn.Wqkv", 3 * size, size, bias=False)
        self._attended = weights.linear(f"{name}.attn.Wo", size, size, bias=False)
        self._norm = _norm(bert, weights, f"{name}.mlp_norm")
        self._activate = ACTIVATIONS[bert.activation]
        self._widen = weights.linear(f"{name}.mlp.Wi", 2 * wide, size, bias=False)
        self._narrow = weights.linear(f"{name}.mlp.Wo", size, wide, bias=False)

    def __call__(self, x: mx.array, unseen: mx.array | None, angles: Angles) -> mx.array:
        """Apply: `(B, T, D)` stays."""
        normal = self._attention_norm(x) if self._attention_norm else x
        query, key, value = split_projected(self._projected(normal), self._heads)
        turned = turn(query, angles), turn(key, angles)
        x = x + self._attended(attend(*turned, value, unseen, self._scale))
        widened, gate = mx.split(self._widen(self._norm(x)), 2, axis=-1)
        return x + self._narrow(self._activate(widened) * gate)


def _norm(bert: ModernBert, weights: Weights, name: str) -> LayerNorm:
    return weights.layer_norm(name, bert.hidden_size, bert.norm_eps, bias=False)
