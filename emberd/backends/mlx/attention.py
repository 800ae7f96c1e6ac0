"""Attention with heads, grouped heads, and rotary positions, in MLX.

Shapes in comments: B rows of T tokens, D hidden size, H heads, S head size.
"""

import mlx.core as mx
import numpy as np


def split_heads(x: mx.array, heads: int) -> mx.array:
    """Split token vectors into heads: `(B, T, H * S)` -> `(B, H, T, S)`."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def attend(
    query: mx.array, key: mx.array, value: mx.array, unseen: mx.array | None, scale: float
) -> mx.array:
    """Attend and join the heads: three `(B, H, T, S)` -> `(B, T, H * S)`.

    Keys and values may have fewer heads, each of which serves several neighbouring queries
    (arXiv:2305.13245). `unseen` is added to the scores; it broadcasts to `(B, H, T, T)`. Scores
    are multiplied by `scale`.
    """
    attended = mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=unseen)
    return attended.swapaxes(1, 2).reshape(query.shape[0], query.shape[2], -1)


class Rotary:
    """Turns pairs of numbers by an angle that grows with the position. Source: arXiv:2104.09864.

    The pairs of a head are number i and number i + S / 2, as in transformers. The angles are
    computed in float32 whatever the arithmetic is.
    """

    def __init__(self, size: int, theta: float, *, stretch: float = 1.0) -> None:
        """Turn `size` numbers, all of a head; positions are divided by `stretch`."""
        speed = theta ** (-np.arange(0, size, 2, dtype=np.float64) / size) / stretch
        self._speed = mx.array(speed.astype(np.float32))  # (S / 2,)

    def at(self, positions: mx.array, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """Return cosines and sines, each `(B, 1, T, S / 2)`, for positions `(B, T)`."""
        angles = positions.astype(mx.float32)[:, None, :, None] * self._speed
        return mx.cos(angles).astype(dtype), mx.sin(angles).astype(dtype)


def turn(x: mx.array, angles: tuple[mx.array, mx.array]) -> mx.array:
    """Turn queries or keys: `(B, H, T, S)` stays."""
    cos, sin = angles
    first, second = mx.split(x, 2, axis=-1)
    return mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
