"""What is checked and changed in the graph of an ONNX file before it is compiled."""

from pathlib import Path

import numpy as np
from openvino import Model, Node, Output

from emberd.errors import ModelLoadError
from emberd.models.onnx_data import GET_AGAIN

_FLOATS = ("f16", "f32", "f64")


def refuse_nan(model: Model, path: Path) -> None:
    """Raise `ModelLoadError` if a weight is not a number."""
    for node in model.get_ops():
        if _is_float(node) and node.data.size and np.isnan(node.data.min()):  # as NaN spreads
            raise ModelLoadError(
                f"{path}: {node.get_friendly_name()} has weights that are not numbers (NaN).",
                hint=GET_AGAIN,
            )


def drop_guards(model: Model) -> None:
    """Remove `where(isnan(p), 0, p)` around the softmax of attention, as torch's exporter adds it.

    OpenVINO does not recognize attention with it, and would compute all pairs of tokens at once: a
    peak of 13.5 GiB at 8,192 tokens instead of 1.6 (decision 37). It only matters to a token that
    may attend to nothing, which takes masks of minus infinity; if there are any, it stays.
    """
    nodes = model.get_ordered_ops()
    if any(_is_float(node) and node.data.size and node.data.min() == -np.inf for node in nodes):
        return
    for node in nodes:
        if node.get_type_name() == "Select" and (guarded := _guarded(*node.input_values())):
            node.output(0).replace(guarded)


def _guarded(condition: Output, yes: Output, no: Output) -> Output | None:
    """Return `no` if the condition is that it is not a number, and it is a softmax."""
    asks, softmax = condition.get_node(), no.get_node()
    is_guard = (
        asks.get_type_name() == "IsNaN"
        and softmax.get_type_name() == "Softmax"
        and asks.input_value(0) == no
        and yes.get_node().get_type_name() == "Constant"
    )
    return no if is_guard else None


def _is_float(node: Node) -> bool:
    return node.get_type_name() == "Constant" and node.get_element_type().to_string() in _FLOATS
