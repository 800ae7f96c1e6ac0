"""Writes ONNX files with the library `onnx`: the BERT of a folder, as exporters write it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from emberd.models.local import ONNX_FILE

HEADS = 4
LAYERS = 2
EPS = 1e-12
HIDDEN = {
    "float": float(np.finfo(np.float32).min),  # what transformers adds to scores of padding
    "infinity": -np.inf,
}

Array = npt.NDArray[Any]


@dataclass(kw_only=True)
class Onnx:
    """How a file is to be; by default as optimum exports BERT.

    Attributes:
        inputs: names and ONNX types.
        output: the name of the token vectors.
        axes: the first two dimensions of every input; names are dynamic axes.
        hidden: what is added to the scores of padding.
        guard: whether a softmax has torch's `where(isnan(p), 0, p)` around it.
        heeds_mask: whether attention_mask is used.
        own: the pooling by which the file makes `sentence_embedding`, if it does.
        change: changes the weights.
    """

    inputs: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("input_ids", "attention_mask", "token_type_ids"), TensorProto.INT64
        )
    )
    output: str = "last_hidden_state"
    axes: tuple[str | int, str | int] = ("batch", "sequence")
    hidden: Literal["float", "infinity"] = "float"
    guard: bool = False
    heeds_mask: bool = True
    own: Literal["mean", "cls"] | None = None
    change: Callable[[dict[str, Array]], None] = lambda weights: None

    def model(self, folder: Path) -> onnx.ModelProto:
        """Return the model with the weights in `folder`."""
        weights = load_file(folder / "model.safetensors")
        self.change(weights)
        return _Graph(self, weights).model()

    def write(self, folder: Path) -> Path:
        """Write the file into `folder`, in place of its safetensors, and return its path."""
        return save(self.model(folder), folder)


def save(model: onnx.ModelProto, folder: Path, **external: Any) -> Path:  # noqa: ANN401
    """Write a model to where a repository has it, in place of safetensors; return its path."""
    path = folder / ONNX_FILE
    path.parent.mkdir(exist_ok=True)
    onnx.save_model(model, path, **external)
    (folder / "model.safetensors").unlink(missing_ok=True)
    return path


def save_beside(model: onnx.ModelProto, folder: Path, location: str = "model.onnx_data") -> Path:
    """Write a model with all weights in one file beside it; return the path of the ONNX file."""
    return save(
        model, folder, save_as_external_data=True, location=location, size_threshold=0,
    )  # fmt: skip


class _Graph:
    """Collects the nodes of a BERT."""

    def __init__(self, spec: Onnx, weights: dict[str, Array]) -> None:
        self._spec = spec
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        spec = self._spec
        tokens = self._named(self._encoder(), spec.output)
        size = self._weights["embeddings.LayerNorm.weight"].size
        given = {spec.output: [*spec.axes, size]}
        if spec.own:
            given[self._named(self._pooled(tokens), "sentence_embedding")] = [spec.axes[0], size]
        graph = helper.make_graph(
            self._nodes, "bert",
            [helper.make_tensor_value_info(*each, spec.axes) for each in spec.inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, given[name]) for name in given],
            [*self._tensors.values()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    def _encoder(self) -> str:
        x = self._op("Gather", self._weight("embeddings.word_embeddings"), "input_ids")
        x = self._op("Add", x, self._positions())
        x = self._op("Add", x, self._token_types())
        x = self._norm(x, "embeddings.LayerNorm")
        mask = self._mask()
        for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
            attended = self._attention(x, f"{layer}.attention.self", mask)
            attended = self._linear(attended, f"{layer}.attention.output.dense")
            x = self._norm(self._op("Add", attended, x), f"{layer}.attention.output.LayerNorm")
            wide = self._gelu(self._linear(x, f"{layer}.intermediate.dense"))
            narrow = self._linear(wide, f"{layer}.output.dense")
            x = self._norm(self._op("Add", narrow, x), f"{layer}.output.LayerNorm")
        return x

    def _positions(self) -> str:
        table = self._weight("embeddings.position_embeddings")
        if "position_ids" in self._spec.inputs:
            return self._op("Gather", table, "position_ids")
        shape = self._op("Shape", "input_ids")
        width = self._op("Gather", shape, self._constant(np.int64(1)))
        numbers = self._op("Range", self._constant(np.int64(0)), width, self._constant(np.int64(1)))
        return self._op("Gather", table, numbers)

    def _token_types(self) -> str:
        table = self._weight("embeddings.token_type_embeddings")
        typed = "token_type_ids" in self._spec.inputs
        return self._op(
            "Gather", table, "token_type_ids" if typed else self._constant(np.zeros(1, np.int64))
        )

    def _mask(self) -> str:
        """What is added to the scores: `(R, 1, 1, W)`."""
        given = self._op("Cast", "attention_mask", to=TensorProto.BOOL)
        if not self._spec.heeds_mask:
            given = self._op("Or", given, self._op("Not", given))
        kept = self._op("Unsqueeze", given, self._constant(np.array([1, 2])))
        hidden = self._constant(np.float32(HIDDEN[self._spec.hidden]))
        return self._op("Where", kept, self._constant(np.float32(0)), hidden)

    def _attention(self, x: str, name: str, mask: str) -> str:
        size = self._weights["embeddings.LayerNorm.weight"].size
        split = self._constant(np.array([0, 0, HEADS, size // HEADS]))

        def project(which: str) -> str:
            heads = self._op("Reshape", self._linear(x, f"{name}.{which}"), split)
            return self._op("Transpose", heads, perm=[0, 2, 1, 3])

        keys = self._op("Transpose", project("key"), perm=[0, 1, 3, 2])
        scores = self._op("MatMul", project("query"), keys)
        scale = self._constant(np.float32((size // HEADS) ** -0.5))
        scores = self._op("Add", self._op("Mul", scores, scale), mask)
        shares = self._op("Softmax", scores, axis=-1)
        if self._spec.guard:
            is_nan = self._op("IsNaN", shares)
            shares = self._op("Where", is_nan, self._constant(np.float32(0)), shares)
        attended = self._op("MatMul", shares, project("value"))
        attended = self._op("Transpose", attended, perm=[0, 2, 1, 3])
        return self._op("Reshape", attended, self._constant(np.array([0, 0, size])))

    def _pooled(self, tokens: str) -> str:
        if self._spec.own == "cls":
            return self._op("Gather", tokens, self._constant(np.int64(0)), axis=1)
        kept = self._op("Cast", "attention_mask", to=TensorProto.FLOAT)
        kept = self._op("Unsqueeze", kept, self._constant(np.array([2])))
        total = self._op("ReduceSum", self._op("Mul", tokens, kept), self._one(), keepdims=0)
        return self._op("Div", total, self._op("ReduceSum", kept, self._one(), keepdims=0))

    def _one(self) -> str:
        return self._constant(np.array([1]))

    def _gelu(self, x: str) -> str:
        inner = self._op("Erf", self._op("Div", x, self._constant(np.float32(2**0.5))))
        half = self._op("Mul", x, self._constant(np.float32(0.5)))
        return self._op("Mul", half, self._op("Add", inner, self._constant(np.float32(1))))

    def _linear(self, x: str, name: str) -> str:
        product = self._op("MatMul", x, self._weight(name, transpose=True))
        return self._op("Add", product, self._tensor(f"{name}.bias", self._weights[f"{name}.bias"]))

    def _norm(self, x: str, name: str) -> str:
        parts = [
            self._tensor(f"{name}.{part}", self._weights[f"{name}.{part}"])
            for part in ("weight", "bias")
        ]
        return self._op("LayerNormalization", x, *parts, axis=-1, epsilon=EPS)

    def _weight(self, name: str, *, transpose: bool = False) -> str:
        values = self._weights[f"{name}.weight"]
        return self._tensor(f"{name}.weight", values.T if transpose else values)

    def _constant(self, values: Array | np.generic) -> str:
        return self._tensor(f"constant_{len(self._tensors)}", np.asarray(values))

    def _tensor(self, name: str, values: Array) -> str:
        self._tensors[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def _named(self, given: str, name: str) -> str:
        self._nodes.append(helper.make_node("Identity", [given], [name]))
        return name

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output
