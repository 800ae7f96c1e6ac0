"""The building blocks of an encoder in OpenVINO, from which the architectures are built.

Shapes in comments: R rows of W tokens, N texts, D hidden size, H heads, S head size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from openvino import Node, Shape, Tensor, Type
from openvino import opset15 as op

from emberd.backends.checkpoint import Checkpoint
from emberd.backends.mapped import Scratch, is_mapped
from emberd.backends.modules import Activation, Head
from emberd.backends.tensors import Halves
from emberd.vectors import Matrix

_MOST_BYTES = 256 * 2**20


def integers(*values: int) -> Node:
    """Return a constant list, for axes and shapes."""
    return op.constant(np.array(values, np.int64))


def whole(value: int) -> Node:
    """Return a constant number, for an index or an axis."""
    return op.constant(np.int32(value))


def borrowed(values: npt.NDArray[np.float32]) -> Node:
    """Return a constant that uses the array's own memory (the node keeps the array alive)."""
    return op.constant(values, shared_memory=True)


def _widened(stored: Node) -> Node:
    """Return a weight as float32, which the engine keeps as it is stored.

    The attribute is how OpenVINO marks weights that are compressed. Without it, the engine would
    make float32 of them when it compiles the graph.
    """
    widened = op.convert(stored, "f32")
    widened.get_rt_info()["decompression_0"] = ""
    return widened


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
        """Return the causal mask, true for a token and those before it: `(R, 1, W, W)` bool.

        Where `positions` are counted from the beginning of each text, they say how many that are:
        fewer tables of all pairs than with `same_text`, which for 8,192 tokens take 64 MiB each.
        """
        columns = self.columns()
        keys, queries = op.unsqueeze(columns, whole(0)), op.unsqueeze(columns, whole(1))
        begins = op.unsqueeze(op.subtract(columns, self.positions), integers(1, 3))  # (R, 1, W, 1)
        return op.logical_and(op.greater_equal(keys, begins), op.less_equal(keys, queries))

    def columns(self) -> Node:
        """Return the column numbers, from 0: `(W,)` int32."""
        return columns_of(self.token_ids)


def columns_of(x: Node) -> Node:
    """Return the column numbers of `(R, W)`, from 0: `(W,)` int32."""
    length = op.gather(op.shape_of(x, "i32"), whole(1), whole(0))
    return op.range(whole(0), length, whole(1), "i32")


class Weights:
    """The layers of a checkpoint, by name.

    Some constants borrow memory that they do not keep alive. These weights do, so they have to live
    as long as the graph and what is compiled from it.
    """

    def __init__(self, checkpoint: Checkpoint, *, compute: str, scratch: Path) -> None:
        """Take weights for a graph that will be compiled for this arithmetic.

        Those that are not used as they are stored are kept in files in the folder `scratch`.
        """
        self.folder = checkpoint.folder
        self.heads = checkpoint.heads
        self.takes_pairs = checkpoint.takes_pairs
        self.sparse = checkpoint.sparse
        self._checkpoint = checkpoint
        self._scratch = Scratch(scratch)
        # For float32, the engine would make a float32 copy for each of several lengths of batch.
        self._multiplies_bf16 = compute == "bf16"
        self._lent: list[npt.NDArray[Any]] = []

    def release_pages(self) -> None:
        """Stop counting what was read of the weights as memory of this process."""
        self._checkpoint.release_pages()
        self._scratch.release()

    def embedding(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a table of vectors, `(rows, columns)`."""
        return self._checkpoint.dense_matrix(f"{name}.weight", rows, columns)

    def look_up(self, index: Node, name: str, rows: int, columns: int) -> Node:
        """Look vectors up in a table: `(...)` -> `(..., columns)`.

        A large table is several constants, since a compiled model is written with a copy of each.
        """
        bits = self._checkpoint.bf16_matrix(f"{name}.weight", rows, columns)
        table = self._kept(self.embedding(name, rows, columns) if bits is None else bits)
        first, *others = np.array_split(table, -(-table.nbytes // _MOST_BYTES))
        found, start = self._rows(first, index), len(first)
        for part in others:
            here = self._rows(part, op.subtract(index, whole(start)))
            is_here = op.greater_equal(index, whole(start))
            found = op.select(op.unsqueeze(is_here, whole(-1)), here, found)
            start += len(part)
        return found

    def _rows(self, table: npt.NDArray[Any], index: Node) -> Node:
        """Return rows of a table as float32; if there is no such row, any other."""
        within = op.clamp(index, 0, len(table) - 1)
        if table.dtype == np.float32:
            return op.gather(borrowed(table), within, whole(0))
        return op.convert(op.gather(self._bf16(table), within, whole(0)), "f32")

    def linear(self, x: Node, name: str, outputs: int, inputs: int, *, bias: bool = True) -> Node:
        """Apply `x @ W.T + b`, or without `b`: `(..., inputs)` -> `(..., outputs)`."""
        return self.linears(x, name, outputs, inputs, count=1, bias=bias)[0]

    def linears(
        self, x: Node, name: str, outputs: int, inputs: int, *, count: int, bias: bool = False
    ) -> tuple[Node, ...]:
        """Apply `count` layers of one size that are stored as one: `outputs` rows for each."""
        cuts = [outputs * index for index in range(1, count)]
        products = self.products(x, name, count * outputs, inputs, cuts)
        if not bias:
            return tuple(products)
        shifts = np.split(self._checkpoint.vector(f"{name}.bias", count * outputs), count)
        return tuple(op.add(*each) for each in zip(products, map(borrowed, shifts), strict=True))

    def products(
        self, x: Node, name: str, rows: int, columns: int, cuts: Sequence[int]
    ) -> list[Node]:
        """Multiply by each part of a matrix, which is cut before some of its rows."""
        stored = f"{name}.weight", rows, columns
        bits = self._checkpoint.bf16_matrix(*stored) if self._multiplies_bf16 else None
        if bits is None:
            dense = self._kept(self._checkpoint.dense_matrix(*stored))
            weights = [borrowed(part) for part in np.split(dense, cuts)]
        else:
            weights = [_widened(self._bf16(part)) for part in np.split(self._kept(bits), cuts)]
        return [op.matmul(x, each, transpose_a=False, transpose_b=True) for each in weights]

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
        return borrowed(self.numbers(name, length))

    def numbers(self, name: str, length: int) -> Matrix:
        """Return the same for what is computed before there is a graph, float32."""
        return self._checkpoint.vector(name, length)

    def integers(self, name: str, length: int, *, below: int) -> Node:
        """Return row numbers of a table that has `below` rows: `(length,)` int32."""
        return op.constant(self._checkpoint.integers(name, length, below=below))

    def has(self, name: str) -> bool:
        """Say whether the checkpoint has a tensor."""
        return self._checkpoint.has(name)

    def _kept(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the same numbers in pages of a file, so that they need not stay in memory."""
        return values if is_mapped(values) else self._scratch.put(values)

    def _bf16(self, bits: Halves) -> Node:
        """Return a constant of bfloat16 numbers, given as their bits, in the array's own memory."""
        self._lent.append(bits)
        return op.constant(Tensor(bits, Shape(bits.shape), Type.bf16), shared_memory=True)


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
