"""The building blocks of an encoder in OpenVINO, from which the architectures are built.

Shapes in comments: R rows of W tokens, N texts, D hidden size, H heads, S head size.
"""

import numpy as np
import numpy.typing as npt
from openvino import Node
from openvino import opset15 as op

from emberd.backends.checkpoint import Checkpoint
from emberd.backends.modules import Activation, Head
from emberd.vectors import Matrix


def integers(*values: int) -> Node:
    """Return a constant list, for axes and shapes."""
    return op.constant(np.array(values, np.int64))


def whole(value: int) -> Node:
    """Return a constant number, for an index or an axis."""
    return op.constant(np.int32(value))


def borrowed(values: npt.NDArray[np.float32]) -> Node:
    """Return a constant that uses the array's own memory (the node keeps the array alive)."""
    return op.constant(values, shared_memory=True)


def columns(token_ids: Node) -> Node:
    """Return the column numbers, from 0: `(R, W)` -> `(W,)` int32."""
    length = op.gather(op.shape_of(token_ids, "i32"), whole(1), whole(0))
    return op.range(whole(0), length, whole(1), "i32")


def same_text(segments: Node, queries: Node) -> Node:
    """Return the attention mask, true within a text: `(R, W)` twice -> `(R, 1, W, W)` bool.

    `queries` may be `(R, 1)`, which gives `(R, 1, 1, W)`; see `rows.Rows`. Padding attends to
    padding, or to the row's only text: the softmax over nothing would be NaN.
    """
    return op.equal(op.unsqueeze(queries, integers(1, 3)), op.unsqueeze(segments, integers(1, 2)))


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


def pool(tokens: Node, size: int, places: Node, starts: Node) -> Node:
    """Average some tokens of each text: `(R, W, D)`, `(n,)`, `(N,)` -> `(N, D)`, float32.

    `size` is D. `places` and `starts` say which tokens of which text; see `rows.Rows`.
    """
    flat = op.reshape(tokens, integers(-1, size), special_zero=False)
    return op.embedding_bag_offsets(flat, places, starts, reduction="mean")


def apply_head(vectors: Node, head: Head, weights: Weights) -> Node:
    """Apply a Dense head: `(N, inputs)` -> `(N, outputs)`."""
    x = weights.linear(vectors, head.name, head.outputs, head.inputs, bias=head.bias)
    return activate(x, head.activation)


def activate(x: Node, activation: Activation) -> Node:
    """Apply a function to every number; the shape stays."""
    match activation:
        case "Identity":
            return x
        case "Tanh":
            return op.tanh(x)
        case "ReLU":
            return op.relu(x)
        case "GELU":
            return op.gelu(x, "erf")
        case "GELUTanh":
            return op.gelu(x, "tanh")
