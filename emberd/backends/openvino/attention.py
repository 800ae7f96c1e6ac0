"""Attention with heads, grouped heads, and relative or rotary positions, as OpenVINO operations.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from openvino import Node
from openvino import opset15 as op

from emberd.backends.openvino.graph import Batch, borrowed, integers, whole
from emberd.backends.relative_positions import buckets
from emberd.vectors import Matrix


def split_heads(
    x: Node, heads: int, head_size: int, norm: Callable[[Node], Node] = lambda split: split
) -> Node:
    """Split token vectors into heads, and normalize each: `(R, W, H * S)` -> `(R, H, W, S)`.

    The axes are swapped last: where heads are turned next, OpenVINO does both in one operation.
    """
    split = op.reshape(x, integers(0, 0, heads, head_size), special_zero=True)  # 0 keeps an axis
    return op.transpose(norm(split), integers(0, 2, 1, 3))


def repeat_heads(x: Node, times: int) -> Node:
    """Repeat each head for the queries that share it: `(R, H, W, S)` -> `(R, H * times, W, S)`.

    Source: grouped-query attention, arXiv:2305.13245.
    """
    if times == 1:
        return x
    repeated = op.broadcast(
        op.unsqueeze(x, whole(2)), integers(1, 1, times, 1, 1), broadcast_spec="BIDIRECTIONAL"
    )  # (R, H, times, W, S)
    heads = x.get_output_partial_shape(0)[1].get_length() * times
    size = x.get_output_partial_shape(0)[3].get_length()
    return op.reshape(repeated, integers(0, heads, -1, size), special_zero=True)


class Attend(Protocol):
    """A layer's way to attend: to everything, or only to some."""

    def __call__(
        self, query: Node, key: Node, value: Node, *, scale: float | None = None
    ) -> Node:  # fmt: skip
        """Attend and join the heads: three `(R, H, W, S)` -> `(R, W, H * S)`.

        `scale` is what scores are multiplied by; by default 1 / sqrt(S).
        """
        ...


def attend(query: Node, key: Node, value: Node, mask: Node, scale: float | None = None) -> Node:
    """Attend under the mask, as `Attend` says.

    `mask` broadcasts to `(R, H, W, W)`, query by key: bool, or numbers to add to the scores.
    """
    return join_heads(attention(query, key, value, mask, scale))


def attention(query: Node, key: Node, value: Node, mask: Node, scale: float | None) -> Node:
    """Attend: queries `(R, H, W, S)` stay, whatever the number of keys and values is."""
    more = [] if scale is None else [op.constant(np.float32(scale))]
    return op.scaled_dot_product_attention(query, key, value, mask, *more)


def join_heads(x: Node) -> Node:
    """Join the heads: `(R, H, W, S)` -> `(R, W, H * S)`."""
    together = op.transpose(x, integers(0, 2, 1, 3))  # (R, W, H, S)
    shape = x.get_output_partial_shape(0)
    size = shape[1].get_length() * shape[3].get_length()
    return op.reshape(together, integers(0, 0, size), special_zero=True)


def bias_by_distance(table: Matrix, longest: int, batch: Batch) -> Node:
    """Return what to add to scores within a text, and -inf elsewhere: `(R, H, W, W)`.

    `table` has a bias for each bucket of `relative_positions` and head: `(BUCKETS, H)`. One
    constant serves all layers and all lengths up to `longest`; a batch uses its first rows and
    columns. Distances are the same for texts further on in a packed row. For longer texts, see
    `alibi`.
    """
    place = np.arange(longest)
    bucket = buckets(place[None, :] - place[:, None])  # (longest, longest): key - query
    biases = borrowed(np.ascontiguousarray(table[bucket].transpose(2, 0, 1)))
    used = batch.columns()
    bias = op.gather(op.gather(biases, used, whole(1)), used, whole(2))  # (H, W, W)
    return op.select(batch.same_text(), bias, op.constant(np.float32(-np.inf)))


class Rotary:
    """Turns pairs of numbers by an angle that grows with the position. Source: arXiv:2104.09864.

    The pairs of a head are number i and number i + S / 2, as in transformers.
    """

    def __init__(
        self, positions: Node, size: int, theta: float, longest: int, *, stretch: float = 1.0
    ) -> None:
        """Look the angles up: positions `(R, W)` below `longest`, which are divided by `stretch`.

        `size` numbers are turned.
        """
        speed = theta ** (-np.arange(0, size, 2, dtype=np.float64) / size) / stretch  # (size / 2,)
        angle = np.arange(longest, dtype=np.float64)[:, None] * speed
        both = np.concatenate([angle, angle], axis=1)  # (longest, size)
        self._size = size
        self._cos = self._of(np.cos(both), positions)
        self._sin = self._of(np.sin(both), positions)

    def turn(self, x: Node) -> Node:
        """Turn queries or keys: `(R, H, W, S)` stays. All of a head is turned.

        OpenVINO makes a single operation (RoPE) of it, but not if the axis is given as -1.
        """
        half = self._size // 2
        first, second = op.variadic_split(x, whole(3), integers(half, half)).outputs()
        turned = op.concat([op.negative(second), first], -1)
        return op.add(op.multiply(x, self._cos), op.multiply(turned, self._sin))

    def _of(self, table: np.ndarray, positions: Node) -> Node:
        """Return `(R, 1, W, S)`."""
        rows = op.gather(borrowed(table.astype(np.float32)), positions, whole(0))
        return op.unsqueeze(rows, whole(1))
