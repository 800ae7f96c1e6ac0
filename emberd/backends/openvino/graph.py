"""The building blocks of an encoder as OpenVINO operations; the architectures put them together.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import numpy as np
import numpy.typing as npt
from openvino import Node
from openvino import opset14 as op

from emberd.backends.base import Pooling
from emberd.backends.checkpoint import Checkpoint
from emberd.vectors import Matrix


def integers(*values: int) -> Node:
    """Return a constant list, as axes and shapes are given."""
    return op.constant(np.array(values, np.int64))


def whole(value: int) -> Node:
    """Return a constant number, as an index or an axis is given."""
    return op.constant(np.int32(value))


def borrowed(values: npt.NDArray[np.float32]) -> Node:
    """Return a constant that uses the array's own memory (the node keeps the array alive)."""
    return op.constant(values, shared_memory=True)


class Weights:
    """The layers of a checkpoint, by name."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def embedding(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a table of vectors, `(rows, columns)`."""
        return self._checkpoint.dense_matrix(f"{name}.weight", rows, columns)

    def linear(self, x: Node, name: str, outputs: int, inputs: int) -> Node:
        """Apply `x @ W.T + b`: `(..., inputs)` -> `(..., outputs)`."""
        weight = borrowed(self._checkpoint.dense_matrix(f"{name}.weight", outputs, inputs))
        bias = borrowed(self._checkpoint.vector(f"{name}.bias", outputs))
        return op.add(op.matmul(x, weight, transpose_a=False, transpose_b=True), bias)

    def layer_norm(self, x: Node, name: str, size: int, eps: float) -> Node:
        """Normalize the last axis, then scale and shift. Source: arXiv:1607.06450."""
        normal = op.mvn(x, integers(-1), True, eps, "inside_sqrt")
        scaled = op.multiply(normal, borrowed(self._checkpoint.vector(f"{name}.weight", size)))
        return op.add(scaled, borrowed(self._checkpoint.vector(f"{name}.bias", size)))


def pool(tokens: Node, mask: Node, pooling: Pooling) -> Node:
    """Make one vector of each row's tokens: `(B, T, D)`, `(B, T)` -> `(B, D)`, float32."""
    if pooling == "cls":
        return op.gather(tokens, whole(0), whole(1))
    if pooling == "last":
        last = op.subtract(op.reduce_sum(mask, whole(1)), whole(1))  # (B,): padded on the right
        return op.gather(tokens, last, whole(1), batch_dims=1)
    kept = op.convert(op.unsqueeze(mask, whole(2)), np.float32)  # (B, T, 1)
    total = op.reduce_sum(op.multiply(tokens, kept), whole(1))  # (B, D)
    return op.divide(total, op.reduce_sum(kept, whole(1)))
