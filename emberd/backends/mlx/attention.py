"""Attention with heads, grouped heads, and relative or rotary positions, in MLX.

Shapes in comments: B rows of T tokens, D hidden size, H heads, S head size.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from emberd.backends.mlx.layers import Weight, on_gpu
from emberd.backends.mlx.packed import Packed
from emberd.backends.relative_positions import distance_buckets

_MOST_QUERIES = 512  # so many of a long text attend at once, on a CPU or with ALiBi

Angles = tuple[mx.array, mx.array]
"""Cosines and sines of the angles to turn by; see `Rotary.at`."""


def split_heads(x: mx.array, heads: int) -> mx.array:
    """Split token vectors into heads: `(B, T, H * S)` -> `(B, H, T, S)`."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def split_projected(x: mx.array, heads: int) -> list[mx.array]:
    """Split one product for query, key and value: `(B, T, 3 * H * S)` -> three `(B, H, T, S)`.

    They are views of it: nothing is copied.
    """
    parts = x.reshape(*x.shape[:2], 3, heads, -1)
    return [parts[:, :, part].swapaxes(1, 2) for part in range(3)]


def attend(
    query: mx.array, key: mx.array, value: mx.array, unseen: mx.array | None, scale: float
) -> mx.array:
    """Attend and join the heads: three `(B, H, T, S)` -> `(B, T, H * S)`.

    Keys and values may have fewer heads, each of which serves several neighbouring queries
    (arXiv:2305.13245). `unseen` is added to the scores; it broadcasts to `(B, H, T, T)`. Scores
    are multiplied by `scale`.

    A CPU makes the scores of all pairs: 3 GiB for 12 heads and 8,192 tokens. So there it goes
    through the queries part by part; on a GPU a single kernel never has them all.
    """
    step = query.shape[2] if on_gpu() else _MOST_QUERIES
    return _by_parts(query, key, value, scale, step, lambda some: _of_queries(unseen, some))


def _by_parts(
    query: mx.array,
    key: mx.array,
    value: mx.array,
    scale: float,
    step: int,
    added: Callable[[slice], mx.array | None],
) -> mx.array:
    """Let so many queries attend at a time; `added` returns what to add to the scores of some."""
    tokens = query.shape[2]
    parts = []
    for start in range(0, tokens, step):
        some = slice(start, start + step)
        parts.append(
            mx.fast.scaled_dot_product_attention(
                query[:, :, some], key, value, scale=scale, mask=added(some)
            )
        )
        if tokens > step:  # or MLX would compute all scores before it takes the first softmax
            mx.async_eval(parts[-1])  # type: ignore[no-untyped-call]
    attended = mx.concatenate(parts, axis=2)
    return attended.swapaxes(1, 2).reshape(query.shape[0], tokens, -1)


def _of_queries(unseen: mx.array | None, some: slice) -> mx.array | None:
    """Return the part for some queries, if it differs between queries."""
    if unseen is None or unseen.shape[-2] == 1:
        return unseen
    return unseen[..., some, :]


class DistanceBias:
    """A bias for each distance between two tokens and each head, shared by all layers."""

    def __init__(self, table: Weight, longest: int) -> None:
        """Spread `table`, `(BUCKETS, H)`, over the distances in texts of up to `longest` tokens."""
        # from 1 - longest to longest - 1: (2 * longest - 1, H)
        self._by_distance = table.rows(mx.array(distance_buckets(longest)))
        self._farthest = longest - 1

    def of(self, batch: Packed, dtype: mx.Dtype) -> mx.array:
        """Return what to add to the scores: `(1, H, T, T)`, or with a mask `(B, H, T, T)`."""
        biases = self._by_distance[batch.distances() + self._farthest]  # (T, T, H)
        # Contiguous, as attention reads that fastest.
        bias = mx.contiguous(biases.transpose(2, 0, 1))[None]
        unseen = batch.unseen(dtype)
        return bias if unseen is None else bias + unseen


class Alibi:
    """Attention with linear biases to both sides: a score loses the head's slope for each token.

    Sources: arXiv:2108.12409; for both sides, 2310.19923, section 4.1. Long texts attend in blocks
    of queries, as what is added to all their scores would be gigabytes.
    """

    def __init__(self, slopes: list[float], batch: Packed, dtype: mx.Dtype) -> None:
        """Take the slope of each head, and the texts of a batch."""
        self._slopes = -mx.array(slopes)[:, None, None]  # (H, 1, 1)
        self._distances = mx.abs(batch.distances())  # (T, T)
        self._dtype = dtype
        self._unseen = batch.unseen(dtype)
        whole = len(self._distances) <= _MOST_QUERIES
        self._bias = self._of(slice(None)) if whole else None

    def attend(self, query: mx.array, key: mx.array, value: mx.array, scale: float) -> mx.array:
        """Attend and join the heads: three `(B, H, T, S)` -> `(B, T, H * S)`."""
        if self._bias is not None:
            return attend(query, key, value, self._bias, scale)
        return _by_parts(query, key, value, scale, _MOST_QUERIES, self._of)

    def _of(self, queries: slice) -> mx.array:
        """Return what to add to the scores of some queries: `(1, H, Q, T)` or `(B, H, Q, T)`."""
        bias = (self._slopes * self._distances[queries])[None].astype(self._dtype)
        unseen = _of_queries(self._unseen, queries)
        return bias if unseen is None else bias + unseen


class Rotary:
    """Turns pairs of numbers by an angle that grows with the position. Source: arXiv:2104.09864.

    The pairs of a head are number i and number i + S / 2, as in transformers. The angles are
    computed in float32 whatever the arithmetic is.
    """

    def __init__(self, size: int, theta: float, *, stretch: float = 1.0) -> None:
        """Turn `size` numbers, all of a head; positions are divided by `stretch`."""
        speed = theta ** (-np.arange(0, size, 2, dtype=np.float64) / size) / stretch
        self._speed = mx.array(speed.astype(np.float32))  # (S / 2,)

    def at(self, positions: mx.array, dtype: mx.Dtype) -> Angles:
        """Return cosines and sines, each `(B, 1, T, S / 2)`, for positions `(B, T)`."""
        angles = positions.astype(mx.float32)[:, None, :, None] * self._speed
        return mx.cos(angles).astype(dtype), mx.sin(angles).astype(dtype)


def turn(x: mx.array, angles: Angles) -> mx.array:
    """Turn queries or keys: `(B, H, T, S)` stays."""
    cos, sin = angles
    first, second = mx.split(x, 2, axis=-1)
    return mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
