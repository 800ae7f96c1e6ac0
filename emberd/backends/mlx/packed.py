"""A batch in MLX's memory: attention within each text, and the mean of the tokens to pool.

Shapes: B rows of T tokens, N texts, at most S in a row, D hidden size.
"""

from dataclasses import dataclass
from typing import Self

import mlx.core as mx
import numpy as np

from emberd.backends.base import TokenIds
from emberd.backends.rows import Rows
from emberd.backends.shapes import power_of_two


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What a model needs of a batch.

    Attributes:
        token_ids: `(B, T)` int32.
        positions: `(B, T)` int32; rows of the position table.
        mask: `(B, T)` int32, as `base.Encoder` says; None if rows are texts without padding.
        texts_in_a_row: S; with more than 1, attention stays within each text.
        places: `(N,)` int32; of each text: its place among B * S, or, if it is one token that is
            pooled, among B * T.
        pools_one: whether just one token of each text is pooled.
        texts: N.
        types: `(B, T)` int32; token types of pairs of texts, or None.
        groups: `(G,)` int32; for pooling `max`, the text of each group of tokens, otherwise None.
            `places` is then `(M, G)`: that of `rows.Rows` without blocks.
        chunks: `(N, T)` float32; 1 for the tokens of each chunk of the only text, or None.
    """

    token_ids: mx.array
    positions: mx.array
    mask: mx.array | None
    texts_in_a_row: int
    places: mx.array
    pools_one: bool
    texts: int
    types: mx.array | None = None
    groups: mx.array | None = None
    chunks: mx.array | None = None

    @classmethod
    def of(cls, rows: Rows, mask: TokenIds, *, few_shapes: bool) -> Self:
        """Upload a batch. With few shapes, S, N and G are rounded up to powers of two."""
        several = int(rows.segments.max())
        pools_one = not rows.is_grouped and len(rows.places) == len(rows.starts)
        places = rows.places if pools_one or rows.is_grouped else rows.places[rows.starts]
        texts, groups = rows.texts, rows.starts
        if rows.is_grouped:
            places = places.swapaxes(0, 1).reshape(places.shape[1], -1)
        if few_shapes:
            several, texts = power_of_two(several), power_of_two(texts)
            if rows.is_grouped:
                more = power_of_two(len(groups)) - len(groups)
                groups = np.pad(groups, (0, more), mode="edge")
                places = np.pad(places, ((0, 0), (0, more)), mode="edge")
            else:
                places = np.pad(places, (0, texts - len(places)))
        if not (pools_one or rows.is_grouped):
            places = places // mask.shape[1] * several + mask.ravel()[places] - 1
        whole = not few_shapes and several == 1 and (mask > 0).all()
        return cls(
            token_ids=mx.array(rows.token_ids),
            positions=mx.array(rows.positions),
            mask=None if whole else mx.array(mask),
            texts_in_a_row=several,
            places=mx.array(places),
            pools_one=pools_one,
            types=None if rows.types is None else mx.array(rows.types),
            groups=mx.array(groups) if rows.is_grouped else None,
            texts=texts,
            chunks=_chunks(rows, texts, mask.shape[1]) if rows.has_chunks else None,
        )

    def unseen(
        self, dtype: mx.Dtype, *, causal: bool = False, within: int | None = None
    ) -> mx.array | None:
        """Return what to add to attention scores: 0 or -inf, `(B, 1, 1, T)` or `(B, 1, T, T)`.

        `causal`: a token attends to none that come later; `within`: to none farther away. None
        means that every token attends to its whole row.

        Never -inf for a whole row, whose softmax would be NaN: padding attends to padding, or to
        the row's only text. Numbers, because from a bool mask MLX on CUDA would make them for every
        head and query in each layer, which takes four times as long as the attention itself.
        """
        seen = self._seen(square=causal or within is not None)
        place = mx.arange(self.token_ids.shape[1])
        keys, queries = place[None, :], place[:, None]  # compared: (T, T) distances take 4 bytes
        if causal:
            before = keys <= queries
            seen = before if seen is None else seen & before
        if within is not None:
            near = (keys <= queries + within) & (keys >= queries - within)
            seen = near if seen is None else seen & near
        if seen is None:
            return None
        return mx.where(seen, mx.array(0, dtype), mx.array(-mx.inf, dtype))

    def distances(self) -> mx.array:
        """Return key - query, `(T, T)` int32. Texts stand in one piece, so it is theirs, too."""
        place = mx.arange(self.token_ids.shape[1])
        return place[None, :] - place[:, None]

    def _seen(self, *, square: bool) -> mx.array | None:
        """Return the mask of `unseen` as bool, `(B, 1, T, T)` if `square`; None for whole rows."""
        if self.mask is None:
            return None
        text = mx.abs(self.mask)
        if self.texts_in_a_row == 1 and not square:
            return (text != 0)[:, None, None, :]
        return text[:, None, :, None] == text[:, None, None, :]

    def pool(self, tokens: mx.array) -> mx.array:
        """Average the tokens to pool of each text: `(B, T, D)` -> `(N, D)`, float32."""
        size = tokens.shape[-1]
        if self.chunks is not None:
            tokens = tokens[0].astype(mx.float32)
            if self.mask is not None:
                tokens = mx.where(self.mask[0, :, None] > 0, tokens, 0)  # as below
            return (self.chunks @ tokens) / mx.maximum(self.chunks.sum(axis=-1, keepdims=True), 1)
        if self.pools_one:
            return tokens.reshape(-1, size)[self.places].astype(mx.float32)
        tokens = tokens.astype(mx.float32)
        if self.mask is None:
            return tokens.mean(axis=1)
        # Padding may hold anything, and 0 * inf would be NaN.
        tokens = mx.where(self.mask[:, :, None] > 0, tokens, 0)
        numbers = mx.arange(1, self.texts_in_a_row + 1)
        pooled = (self.mask[:, None, :] == numbers[:, None]).astype(mx.float32)  # (B, S, T)
        counts = mx.maximum(pooled.sum(axis=-1, keepdims=True), 1)
        means = (pooled @ tokens) / counts  # (B, S, D)
        return means.reshape(-1, size)[self.places]


def _chunks(rows: Rows, texts: int, width: int) -> mx.array:
    """Return `Packed.chunks`, with as many rows as there are to be vectors."""
    lengths = np.diff(rows.starts, append=len(rows.places))
    chunks = np.zeros((texts, width), np.float32)
    chunks[np.repeat(np.arange(len(lengths)), lengths), rows.places] = 1
    return mx.array(chunks)
