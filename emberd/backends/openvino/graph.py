"""The building blocks of an encoder in OpenVINO, from which the architectures are built.

Shapes in comments: R rows of W tokens, N texts, D hidden size, H heads, S head size.
"""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Batch:
    """What an encoder is given, all `(R, W)` int32; `queries` may be `(R, 1)`. See `rows.Rows`.

    `types` are the token types of pairs of texts; None if there are no pairs.
    """

    token_ids: Node
    positions: Node
    segments: Node
    queries: Node
    types: Node | None = None

    def same_text(self) -> Node:
        """Return the attention mask, true within a text: `(R, 1, W, W)` or `(R, 1, 1, W)` bool.

        Padding attends to padding, or to the row's only text: the softmax over nothing would be
        NaN.
        """
        queries = op.unsqueeze(self.queries, integers(1, 3))
        return op.equal(queries, op.unsqueeze(self.segments, integers(1, 2)))

    def before(self) -> Node:
        """Return the causal mask, true for a token and those before it: `(R, 1, W, W)` bool."""
        return self._only(op.less_equal(self._distances(), whole(0)))

    def near(self, most: int) -> Node:
        """Return the mask of local attention, true up to `most` tokens away: `(R, 1, W, W)`."""
        return self._only(op.less_equal(op.abs(self._distances()), whole(most)))

    def columns(self) -> Node:
        """Return the column numbers, from 0: `(W,)` int32."""
        length = op.gather(op.shape_of(self.token_ids, "i32"), whole(1), whole(0))
        return op.range(whole(0), length, whole(1), "i32")

    def _only(self, pairs: Node) -> Node:
        """Return the mask for some of the pairs `(W, W)` within a text: `(R, 1, W, W)` bool.

        Every token attends to itself: to padding, the only text of its row may be out of sight.
        """
        itself = op.equal(self._distances(), whole(0))
        return op.logical_or(op.logical_and(self.same_text(), pairs), itself)

    def _distances(self) -> Node:
        """Return key - query, `(W, W)` int32. Texts stand in one piece, so it is theirs, too."""
        columns = self.columns()
        return op.subtract(op.unsqueeze(columns, whole(0)), op.unsqueeze(columns, whole(1)))


class Weights:
    """The layers of a checkpoint, by name."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def embedding(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a table of vectors, `(rows, columns)`."""
        return self._checkpoint.dense_matrix(f"{name}.weight", rows, columns)

    def look_up(self, index: Node, name: str, rows: int, columns: int) -> Node:
        """Look vectors up in a table: `(...)` -> `(..., columns)`."""
        return op.gather(borrowed(self.embedding(name, rows, columns)), index, whole(0))

    def linear(self, x: Node, name: str, outputs: int, inputs: int, *, bias: bool = True) -> Node:
        """Apply `x @ W.T + b`, or without `b`: `(..., inputs)` -> `(..., outputs)`."""
        weight = borrowed(self._checkpoint.dense_matrix(f"{name}.weight", outputs, inputs))
        product = op.matmul(x, weight, transpose_a=False, transpose_b=True)
        if not bias:
            return product
        return op.add(product, self.vector(f"{name}.bias", outputs))

    def linears(
        self, x: Node, name: str, outputs: int, inputs: int, *, count: int, bias: bool = False
    ) -> tuple[Node, ...]:
        """Apply `count` layers of one size that are stored as one: `outputs` rows for each."""
        stored = self._checkpoint.dense_matrix(f"{name}.weight", count * outputs, inputs)
        products = [
            op.matmul(x, borrowed(rows), transpose_a=False, transpose_b=True)
            for rows in np.split(stored, count)
        ]
        if not bias:
            return tuple(products)
        shifts = np.split(self._checkpoint.vector(f"{name}.bias", count * outputs), count)
        return tuple(op.add(*each) for each in zip(products, map(borrowed, shifts), strict=True))

    def layer_norm(self, x: Node, name: str, size: int, eps: float, *, bias: bool = True) -> Node:
        """Normalize the last axis, then scale and shift. Source: arXiv:1607.06450."""
        normal = op.mvn(x, integers(-1), True, eps, "inside_sqrt")
        scaled = op.multiply(normal, self.vector(f"{name}.weight", size))
        return op.add(scaled, self.vector(f"{name}.bias", size)) if bias else scaled

    def rms_norm(
        self, x: Node, name: str, size: int, eps: float, *, add_to_scale: float = 0.0
    ) -> Node:
        """Divide the last axis by its root mean square, then scale. Source: arXiv:1910.07467."""
        square = op.reduce_mean(op.multiply(x, x), integers(-1), keep_dims=True)
        normal = op.divide(x, op.sqrt(op.add(square, op.constant(np.float32(eps)))))
        scale = self._checkpoint.vector(f"{name}.weight", size) + np.float32(add_to_scale)
        return op.multiply(normal, borrowed(scale))

    def vector(self, name: str, length: int) -> Node:
        """Return a bias, or the scale of a norm: `(length,)`."""
        return borrowed(self._checkpoint.vector(name, length))

    def integers(self, name: str, length: int, *, below: int) -> Node:
        """Return row numbers of a table that has `below` rows: `(length,)` int32."""
        return op.constant(self._checkpoint.integers(name, length, below=below))

    def has(self, name: str) -> bool:
        """Say whether the checkpoint has a tensor."""
        return self._checkpoint.has(name)


def pool(tokens: Node, size: int, places: Node, starts: Node) -> Node:
    """Average some tokens of each text: `(R, W, D)`, `(n,)`, `(N,)` -> `(N, D)`, float32.

    `size` is D. `places` and `starts` say which tokens of which text; see `rows.Rows`.
    """
    flat = op.reshape(tokens, integers(-1, size), special_zero=False)
    return op.embedding_bag_offsets(flat, places, starts, reduction="mean")


def apply_head(vectors: Node, head: Head, weights: Weights) -> Node:
    """Apply a head: `(N, inputs)` -> `(N, outputs)`."""
    x = weights.linear(vectors, head.name, head.outputs, head.inputs, bias=head.bias)
    x = activate(x, head.activation)
    if not head.norm:
        return x
    return weights.layer_norm(x, head.norm, head.outputs, head.norm_eps, bias=False)


def gated(
    x: Node,
    widen: Callable[[Node], tuple[Node, ...]],
    activation: Activation,
    narrow: Callable[[Node], Node],
) -> Node:
    """Apply a feed-forward with a gate (arXiv:2002.05202): `(R, W, D)` stays.

    `widen` gives what is activated and what it is multiplied by; `narrow` goes back to D.

    A fourth axis keeps OpenVINO from making a single kernel of it (LLMMLP, in bf16 with AMX), which
    divides by zero where it has one thread, and takes the tanh approximation for every GELU.
    """
    active, other = widen(op.unsqueeze(x, whole(1)))  # (R, 1, W, ...)
    return op.squeeze(narrow(op.multiply(activate(active, activation), other)), whole(1))


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
        case "SiLU":
            return op.swish(x)
