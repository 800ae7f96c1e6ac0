"""An ONNX file as an OpenVINO graph with emberd's inputs, pooling and heads.

Shapes in comments: R rows of W tokens, N texts, D size of a token's vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from openvino import Core, Model, Node, Output
from openvino import opset15 as op

from emberd.backends.architectures.native import class_of
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.config import ModelConfig
from emberd.backends.onnx.beside import with_data_beside
from emberd.backends.onnx.cleaning import drop_guards, refuse_nan
from emberd.backends.openvino.graph import Weights, apply_head, pool, whole
from emberd.errors import ModelLoadError
from emberd.models.onnx_data import GET_AGAIN, check_data

REQUIRED: Final = ("input_ids", "attention_mask")
OPTIONAL: Final = ("token_type_ids", "position_ids")
TOKEN_VECTORS: Final = ("last_hidden_state", "token_embeddings")
TEXT_VECTORS: Final = "sentence_embedding"
NO_VECTORS: Final = ("logits", TEXT_VECTORS)
"""Outputs of task heads, and of texts, whatever their shape is."""
EXPORT_AGAIN: Final = (
    "Choose another source, or export the model again for any number of texts and tokens:"
    " `optimum-cli export onnx --model OWNER/NAME --task feature-extraction FOLDER`."
)


@dataclass(frozen=True, slots=True)
class Graph:
    """What was read, as graphs that share their nodes.

    Attributes:
        vectors: token ids and mask `(R, W)`, `places` and `starts` (see `rows.Rows`), all int32 ->
            pooled vectors, `(N, D)` float32.
        own: token ids and mask -> the vectors of texts that the file itself gives, `(R, D)`
            float32; None if it gives none.
    """

    vectors: Model
    own: Model | None


def read(core: Core, path: Path, checkpoint: Checkpoint, weights: Weights, scratch: Path) -> Graph:
    """Read an ONNX file; `checkpoint` has what follows its encoder, and `weights` its layers.

    Raises:
        ModelLoadError: it is damaged, its data is not all there, or it has other inputs or outputs.
    """
    model = _read(core, path, scratch)
    refuse_nan(model, path)
    drop_guards(model)
    tokens, texts = _outputs(model, path)
    size = _size(tokens, path)
    checkpoint.dimensions(size)
    token_ids, mask = (op.parameter([-1, -1], np.int32, name=name) for name in ("ids", "mask"))
    places, starts = (op.parameter([-1], np.int32, name=name) for name in ("places", "starts"))
    _connect(model, path, checkpoint.config, token_ids, mask)
    vectors = pool(op.convert(tokens, "f32"), size, places, starts)
    for head in checkpoint.heads:
        vectors = apply_head(vectors, head, weights)
    return Graph(
        Model([vectors], [token_ids, mask, places, starts], "onnx"),
        Model([op.convert(texts, "f32")], [token_ids, mask], "own") if texts else None,
    )


def _read(core: Core, path: Path, scratch: Path) -> Model:
    check_data(path)
    try:
        with with_data_beside(path, scratch) as readable:
            return core.read_model(readable)
    except RuntimeError as error:
        raise ModelLoadError(
            f"OpenVINO cannot read {path}: {_reason(error)}", hint=GET_AGAIN
        ) from error
    except OSError as error:
        raise ModelLoadError(
            f"{path} cannot be copied to {scratch}: {error.strerror}.",
            hint="Make room on the disk, or move emberd's cache to the disk that has the model.",
        ) from error


def _outputs(model: Model, path: Path) -> tuple[Output, Output | None]:
    """Return the vectors of tokens, and those of texts if the file gives them.

    Some exporters number outputs, and some also give hidden states or what was read. So without one
    of the usual names, the vectors are the only float output for each text and token.
    """
    by_name = {
        name: output.get_node().input_value(0)
        for output in model.outputs
        for name in output.get_names()
    }
    named = [by_name[name] for name in TOKEN_VECTORS if name in by_name]
    unnamed = [each for name, each in by_name.items() if name not in NO_VECTORS and _fits(each)]
    if not named and len(unnamed) != 1:
        raise ModelLoadError(
            f"{path} gives {', '.join(sorted(by_name))[:200]}, but not"
            f" {' or '.join(TOKEN_VECTORS)}, and {len(unnamed) or 'none'} of these could be it.",
            hint=f"emberd pools the vectors of tokens itself. {EXPORT_AGAIN}",
        )
    return (named or unnamed)[0], by_name.get(TEXT_VECTORS)


def _fits(output: Output) -> bool:
    """Whether an output may be token vectors `(R, W, D)`."""
    shape = output.get_partial_shape()
    is_float = output.get_element_type().to_string() in ("f16", "f32")
    return is_float and shape.rank.is_static and len(shape) == 3 and shape[2].is_static


def _size(tokens: Output, path: Path) -> int:
    """Return D of token vectors `(R, W, D)`."""
    shape = tokens.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 3 or shape[2].is_dynamic:
        raise ModelLoadError(
            f"{path} gives token vectors of shape {shape}; it should be (texts, tokens, size).",
            hint=EXPORT_AGAIN,
        )
    return int(shape[2].get_length())


def _connect(model: Model, path: Path, config: ModelConfig, token_ids: Node, mask: Node) -> None:
    """Feed the file's inputs from emberd's: `(R, W)` int32 twice."""
    given = {
        "input_ids": lambda: token_ids,
        "attention_mask": lambda: mask,
        "token_type_ids": lambda: op.broadcast(whole(0), op.shape_of(token_ids)),
        "position_ids": lambda: op.broadcast(_columns(token_ids), op.shape_of(token_ids)),
    }
    inputs = {parameter.get_friendly_name(): parameter for parameter in model.get_parameters()}
    _check_inputs(inputs, path)
    _check_positions(inputs, path, config)
    _check_table(inputs["input_ids"], path, config.size("vocab_size"))
    for name, parameter in inputs.items():
        ours = op.convert(given[name](), parameter.get_element_type().to_string())
        parameter.output(0).replace(ours.output(0))


def _check_inputs(inputs: Mapping[str, Node], path: Path) -> None:
    """Raise `ModelLoadError` unless the inputs are those of an encoder of text, for any batch."""
    missing = [name for name in REQUIRED if name not in inputs]
    unknown = sorted({*inputs} - {*REQUIRED, *OPTIONAL})
    if missing or unknown:
        problem = f"does not take {missing[0]}" if missing else f"wants {', '.join(unknown)[:200]}"
        raise ModelLoadError(
            f"{path} {problem}; emberd gives {', '.join(REQUIRED)} and, if wanted,"
            f" {', '.join(OPTIONAL)}.",
            hint=EXPORT_AGAIN,
        )
    for name, parameter in inputs.items():
        kind, shape = parameter.get_element_type().to_string(), parameter.get_partial_shape()
        if kind not in ("i32", "i64"):
            raise ModelLoadError(
                f"{path} wants {name} as {kind}, not as int64 or int32.", hint=EXPORT_AGAIN
            )
        if len(shape) != 2 or not (shape[0].is_dynamic and shape[1].is_dynamic):
            raise ModelLoadError(
                f"{path} takes {name} only in the shape {shape}, not for any number of texts and"
                " tokens.",
                hint=EXPORT_AGAIN,
            )


def _check_positions(inputs: Mapping[str, Node], path: Path, config: ModelConfig) -> None:
    """Raise `ModelLoadError` if positions are wanted, and they do not simply count from 0."""
    stated, usable = config.get("max_position_embeddings"), class_of(config).positions(config)
    if "position_ids" in inputs and usable is not None and stated != usable:
        raise ModelLoadError(
            f"{path} wants position_ids, which begin elsewhere in {config.get('model_type')} than"
            " at 0.",
            hint="Export the model again without them: it makes them itself.",
        )


def _check_table(token_ids: Node, path: Path, vocab_size: int) -> None:
    """Raise `ModelLoadError` if the table of token vectors has fewer rows than config.json says.

    The engine would give a vector of zeros for a token that is not in it.
    """
    users = [each.get_node() for each in token_ids.output(0).get_target_inputs()]
    for user in users:
        if user.get_type_name() == "Convert":
            users += [each.get_node() for each in user.output(0).get_target_inputs()]
        shape = user.input_value(0).get_partial_shape()
        if user.get_type_name() == "Gather" and len(shape) == 2 and shape[0].is_static:
            rows = int(shape[0].get_length())
            if rows < vocab_size:
                raise ModelLoadError(
                    f"{path} has vectors for {rows} tokens, but config.json beside it says"
                    f" vocab_size {vocab_size}.",
                    hint="The two belong to different models. Get both from the same source.",
                )


def _columns(token_ids: Node) -> Node:
    """Return the position of each token of a row: `(R, W)` -> `(W,)` int32."""
    width = op.gather(op.shape_of(token_ids, "i32"), whole(1), whole(0))
    return op.range(whole(0), width, whole(1), "i32")


def _reason(error: RuntimeError) -> str:
    """Return OpenVINO's words without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(said or lines)[:400]
