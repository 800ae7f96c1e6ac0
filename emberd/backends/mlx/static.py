"""Static models in MLX; see `architectures.static` for the source.

Shapes in comments: B texts, T tokens, D hidden size.
"""

import mlx.core as mx

from emberd.backends.architectures.static import TABLE, Static
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed


class Encoder:
    """A table of vectors."""

    def __init__(self, static: Static, weights: Weights) -> None:
        tokens = static.vocab_size
        self._table = weights.embedding(TABLE, static.rows, static.hidden_size)
        self._rows = self._factors = None
        if weights.has("mapping"):
            self._rows = weights.integers("mapping", tokens, below=static.rows)
        if weights.has("weights"):
            self._factors = weights.vector("weights", tokens)[:, None]  # (vocabulary, 1)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`."""
        ids = batch.token_ids
        x = self._table.rows(ids if self._rows is None else self._rows[ids])
        return x if self._factors is None else x * self._factors[ids]
