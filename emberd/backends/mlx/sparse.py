"""Sparse vectors in MLX; see `backends.sparse` for the sources.

As on OpenVINO, a few thousand entries of the vocabulary are scored at a time, and of these scores
only the largest of each text is kept.

Shapes in comments: B rows of T tokens, D hidden size, G groups of M tokens, N texts, V entries.
"""

import mlx.core as mx

from emberd.backends.mlx.layers import ACTIVATIONS, Linear, Weights
from emberd.backends.mlx.packed import Packed
from emberd.backends.sparse import MaskedLM, SparseHead, TokenWeights

ENTRIES = 4096  # scored at once


def make(head: SparseHead, weights: Weights) -> "Scorer | Weigher":
    """Return what makes sparse vectors of a batch's token vectors."""
    return Scorer(head, weights) if isinstance(head, MaskedLM) else Weigher(head, weights)


class Scorer:
    """A masked language model's head; its last product is one for each part of the vocabulary."""

    def __init__(self, head: MaskedLM, weights: Weights) -> None:
        size, entries = head.hidden_size, head.vocab_size
        self._dense = weights.linear(head.dense, size, size, bias=head.dense_bias)
        self._activate = ACTIVATIONS[head.activation]
        self._norm = weights.layer_norm(head.norm, size, head.norm_eps, bias=head.norm_bias)
        table = weights.embedding(head.decoder, entries, size)
        bias = next((name for name in head.bias if weights.has(name)), None)
        shift = weights.vector(bias, entries) if bias else None
        self._parts = [
            Linear(
                table.part(start, start + ENTRIES),
                None if shift is None else shift[start : start + ENTRIES],
            )
            for start in range(0, entries, ENTRIES)
        ]
        self._logs = head.logs

    def __call__(self, batch: Packed, tokens: mx.array) -> mx.array:
        """Return sparse vectors with their zeros: `(B, T, D)` -> `(N, V)`, float32."""
        x = tokens.reshape(-1, tokens.shape[-1])[batch.places]  # (M, G, D)
        x = self._norm(self._activate(self._dense(x)))
        largest = []
        for part in self._parts:
            largest.append(_of_texts(batch, part(x).max(axis=0).astype(mx.float32)))
            # one part after the other, so that there is only one part's scores at a time
            mx.async_eval(largest[-1])  # type: ignore[no-untyped-call]
        vectors = mx.concatenate(largest, axis=1)
        for _ in range(self._logs):
            vectors = mx.log1p(vectors)
        return vectors


class Weigher:
    """A linear layer that weighs each token as itself."""

    def __init__(self, head: TokenWeights, weights: Weights) -> None:
        self._linear = weights.linear(head.name, 1, head.hidden_size)
        self._entries, self._unused = head.vocab_size, mx.array(head.unused)

    def __call__(self, batch: Packed, tokens: mx.array) -> mx.array:
        """Return sparse vectors with their zeros: `(B, T, D)` -> `(N, V)`, float32."""
        x = tokens.reshape(-1, tokens.shape[-1])[batch.places]
        found = self._linear(x).astype(mx.float32)[..., 0]
        ids = batch.token_ids.reshape(-1)[batch.places]
        texts = mx.broadcast_to(_groups(batch), ids.shape)
        vectors = mx.zeros((batch.texts, self._entries)).at[texts, ids].maximum(found)
        vectors[:, self._unused] = 0
        return vectors


def _of_texts(batch: Packed, scores: mx.array) -> mx.array:
    """Keep each text's largest, at least 0: `(G, entries)` -> `(N, entries)`."""
    nothing = mx.zeros((batch.texts, scores.shape[1]))
    return nothing.at[_groups(batch)].maximum(scores)


def _groups(batch: Packed) -> mx.array:
    assert batch.groups is not None  # pooling is `max`
    return batch.groups
