"""The building blocks of an encoder as OpenVINO operations; the architectures put them together.

Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import numpy as np
import numpy.typing as npt
from openvino import Node
from openvino import opset14 as op

from emberd.backends.base import Pooling
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.modules import Head
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


def places(token_ids: Node) -> Node:
    """Return the number of each token in its text, from 0: `(B, T)` -> `(T,)` int32."""
    length = op.gather(op.shape_of(token_ids, "i32"), whole(1), whole(0))
    return op.range(whole(0), length, whole(1), "i32")


class Weights:
    """The layers of a checkpoint, by name."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def embedding(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a table of vectors, `(rows, columns)`."""
        return self._checkpoint.dense_matrix(f"{name}.weight", rows, columns)

    def linear(self, x: Node, name: str, outputs: int, inputs: int, *, bias: bool = True) -> Node:
        """Apply `x @ W.T + b`, or without `b`: `(..., inputs)` -> `(..., outputs)`."""
        weight = borrowed(self._checkpoint.dense_matrix(f"{name}.weight", outputs, inputs))
        product = op.matmul(x, weight, transpose_a=False, transpose_b=True)
        if not bias:
            return product
        return op.add(product, borrowed(self._checkpoint.vector(f"{name}.bias", outputs)))

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
        # The last place that is no padding, on whichever side that is: (B,).
        last = op.reduce_max(op.multiply(mask, places(mask)), whole(1))
        return op.gather(tokens, last, whole(1), batch_dims=1)
    kept = op.convert(op.unsqueeze(mask, whole(2)), np.float32)  # (B, T, 1)
    total = op.reduce_sum(op.multiply(tokens, kept), whole(1))  # (B, D)
    return op.divide(total, op.reduce_sum(kept, whole(1)))


def apply_head(vectors: Node, head: Head, weights: Weights) -> Node:
    """Apply a Dense head: `(B, inputs)` -> `(B, outputs)`."""
    x = weights.linear(vectors, head.name, head.outputs, head.inputs, bias=head.bias)
    match head.activation:
        case "Identity":
            return x
        case "Tanh":
            return op.tanh(x)
        case "ReLU":
            return op.relu(x)
        case "GELU":
            return op.gelu(x, "erf")
