"""What sentence-transformers does to token vectors, from the files that it keeps beside a model.

`modules.json` lists the steps: Transformer, Pooling, perhaps Dense heads, perhaps Normalize.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from emberd.backends.base import Pooling
from emberd.backends.config import Config, is_file_name
from emberd.errors import ModelLoadError
from emberd.models.folder import read_pooling, read_steps

_RUNNABLE_MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout"}
_ORDER = ("Transformer", "Pooling", "Normalize")  # Dense and Dropout may stand between

Activation = Literal["Identity", "Tanh", "ReLU", "GELU", "GELUTanh"]
"""Functions of one number. `GELUTanh` is the GELU by way of tanh (arXiv:1606.08415, section 2), as
Google's BERT had it; the others go by torch's names."""

_HEAD_ACTIVATIONS: Collection[Activation] = ("Identity", "Tanh", "ReLU", "GELU")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear layer that is applied to the pooled vector, then a function; a `Dense` module.

    `name` is that of its weights: `2_Dense.linear`.
    """

    name: str
    outputs: int
    inputs: int
    bias: bool
    activation: Activation


def check_pooling(folder: Path, stated: Pooling) -> None:
    """Refuse a pooling that the checkpoint's own sentence-transformers files contradict."""
    file = read_pooling(folder)
    if file.modes and file.modes != {stated}:
        raise ModelLoadError(
            f"{file.path} says pooling {' + '.join(sorted(file.modes))}, but the registry states"
            f" {stated}.",
            hint=f"Known are {', '.join(get_args(Pooling))}, one at a time: state the file's in the"
            " entry's `pooling`, or choose another model.",
        )


def read_heads(folder: Path) -> tuple[Head, ...]:
    """Read the Dense steps of a sentence-transformers model, and refuse what nothing here runs."""
    path = folder / "modules.json"
    steps = read_steps(folder) or ()
    kinds = [step.kind for step in steps]
    if unknown := set(kinds) - _RUNNABLE_MODULES:
        raise ModelLoadError(
            f"{path} lists {', '.join(sorted(unknown))} after the encoder, which is not supported."
        )
    heads = [(at, step.path) for at, step in enumerate(steps) if step.kind == "Dense"]
    for at, name in heads:
        if "Pooling" not in kinds[:at] or "Normalize" in kinds[:at]:
            raise ModelLoadError(
                f"{path} lists {' > '.join(kinds)}; Dense is supported between Pooling and"
                " Normalize only."
            )
        if not is_file_name(name):
            raise ModelLoadError(
                f"{path} lists Dense with path {name!r}, which is no folder's name."
            )
    order = [_ORDER.index(kind) for kind in kinds if kind in _ORDER]
    if order != sorted(set(order)):
        raise ModelLoadError(
            f"{path} lists {' > '.join(kinds)}; supported is each of {', '.join(_ORDER)} once, in"
            " this order.",
            hint="Choose another model: its vectors would not be those that it was trained for.",
        )
    left = [config.parent for config in sorted(folder.glob("*_Dense/config.json"))]
    if left and not heads:
        raise ModelLoadError(
            f"{left[0]} holds a Dense head, but {path} does not list it"
            f"{'' if steps else ' (there is no such file)'}.",
            hint="Get the model's modules.json, or remove the folder if the model is without it.",
        )
    return tuple(_head(folder / name) for _, name in heads)


def _head(step: Path) -> Head:
    """Read `config.json` of a Dense step."""
    config = Config(step / "config.json")
    config.expect(module_input_name="sentence_embedding", module_output_name="sentence_embedding")
    # A name of torch such as torch.nn.modules.linear.Identity; sentence-transformers' own default.
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _HEAD_ACTIVATIONS:
        raise ModelLoadError(
            f"{config.path}: activation_function is {activation}; only"
            f" {', '.join(_HEAD_ACTIVATIONS)} are known.",
            hint="Choose another model, or write a backend that has it"
            " (docs/writing-a-backend.md).",
        )
    return Head(
        name=f"{step.name}.linear",
        outputs=config.size("out_features"),
        inputs=config.size("in_features"),
        bias=config.get("bias", True) is True,
        activation=cast("Activation", activation),
    )
