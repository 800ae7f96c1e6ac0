"""What follows the encoder, from the files that sentence-transformers keeps beside a model.

`modules.json` lists the steps: Transformer, Pooling, perhaps Dense heads, perhaps Normalize.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from emberd.backends.base import Pooling
from emberd.backends.config import ModelConfig, is_file_name
from emberd.errors import ModelLoadError
from emberd.models.modules import Step, read_pooling, read_steps
from emberd.registry.spec import POOLINGS

_STATIC = ("Transformer", "Pooling")  # what a StaticEmbedding step does, in this order
_RUNNABLE_MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout"}
_ORDER = ("Transformer", "Pooling", "Normalize")  # Dense and Dropout may stand between

Activation = Literal["Identity", "Tanh", "ReLU", "GELU", "GELUTanh", "SiLU"]
"""Activation functions, by their names in torch. `GELUTanh` is the tanh approximation of GELU that
Google's BERT used (arXiv:1606.08415, section 2); `SiLU` is also called swish."""

_HEAD_ACTIVATIONS: Collection[Activation] = ("Identity", "Tanh", "ReLU", "GELU")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear layer and an activation, applied to the pooled vector: `Dense`, or of a classifier.

    `name` is the prefix of its weights, such as `2_Dense.linear`. `norm` is that of a layer norm
    without bias that follows, if there is one.
    """

    name: str
    outputs: int
    inputs: int
    bias: bool = True
    activation: Activation = "Identity"
    norm: str = ""
    norm_eps: float = 0.0


def check_pooling(folder: Path, stated: Pooling) -> None:
    """Refuse a pooling that contradicts the checkpoint's own sentence-transformers files."""
    file = read_pooling(folder)
    if file.modes and file.modes != {stated}:
        raise ModelLoadError(
            f"{file.path} says pooling {' + '.join(sorted(file.modes))}, but the registry says"
            f" {stated}.",
            hint="Set the entry's `pooling` to what the file says, or choose another model;"
            f" supported are {', '.join(POOLINGS)}, one at a time.",
        )


def expect_no_steps(folder: Path) -> None:
    """Raise `ModelLoadError` if a re-ranker has steps beside its classifier."""
    kinds = [step.kind for step in read_steps(folder) or () if step.kind != "Transformer"]
    if kinds:
        raise ModelLoadError(
            f"{folder / 'modules.json'} lists {', '.join(kinds)}; a re-ranker"
            " that emberd runs is a classifier without further steps.",
            hint="Choose another re-ranker; docs/configuration.md says which run.",
        )


def read_heads(folder: Path) -> tuple[Head, ...]:
    """Read the Dense steps of a sentence-transformers model; refuse steps that are unsupported."""
    path = folder / "modules.json"
    steps = read_steps(folder) or ()
    kinds_and_paths = [
        (kind, step.path)
        for step in steps
        for kind in (_STATIC if step.kind == "StaticEmbedding" else (step.kind,))
    ]
    kinds = [kind for kind, _ in kinds_and_paths]
    if unknown := set(kinds) - _RUNNABLE_MODULES:
        raise _unsupported(path, [step for step in steps if step.kind in unknown])
    heads = [(at, path) for at, (kind, path) in enumerate(kinds_and_paths) if kind == "Dense"]
    for at, name in heads:
        if "Pooling" not in kinds[:at] or "Normalize" in kinds[:at]:
            raise ModelLoadError(
                f"{path} lists {' > '.join(kinds)}; Dense is only supported between Pooling and"
                " Normalize."
            )
        if not is_file_name(name):
            raise ModelLoadError(
                f"{path} lists Dense with path {name!r}, which is not the name of a folder."
            )
    order = [_ORDER.index(kind) for kind in kinds if kind in _ORDER]
    if order != sorted(set(order)):
        raise ModelLoadError(
            f"{path} lists {' > '.join(kinds)}; only {', '.join(_ORDER)} are supported, each"
            " once and in this order.",
            hint="Choose another model: the vectors of this one would be wrong.",
        )
    left = [config.parent for config in sorted(folder.glob("*_Dense/config.json"))]
    if left and not heads:
        raise ModelLoadError(
            f"{left[0]} holds a Dense head, but {path} does not list it"
            f"{'' if steps else ' (there is no such file)'}.",
            hint="Get the model's modules.json, or delete the folder if the model does not use it.",
        )
    return tuple(_head(folder / name) for _, name in heads)


def _unsupported(path: Path, steps: Collection[Step]) -> ModelLoadError:
    own = [
        f"{step.module}.{step.kind}"
        for step in steps
        if step.module.partition(".")[0] != "sentence_transformers"
    ]
    if own:
        return ModelLoadError(
            f"{path} asks for Python code that comes with the model ({', '.join(own)}). That is not"
            " supported: emberd never runs such code, which could do anything on this machine.",
            hint="Choose another model.",
        )
    kinds = ", ".join(sorted(step.kind for step in steps))
    if {step.kind for step in steps} & {"SpladePooling", "MLMTransformer", "Router"}:
        return ModelLoadError(
            f"{path} lists {kinds}, as sparse models do.", hint="Write `kind: sparse` in its entry."
        )
    return ModelLoadError(f"{path} lists {kinds} after the encoder, which is not supported.")


def _head(step: Path) -> Head:
    """Read `config.json` of a Dense step."""
    config = ModelConfig(step / "config.json")
    config.expect(module_input_name="sentence_embedding", module_output_name="sentence_embedding")
    # A torch name such as torch.nn.modules.linear.Identity; Tanh is sentence-transformers' default.
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in _HEAD_ACTIVATIONS:
        raise ModelLoadError(
            f"{config.path}: activation_function is {activation}; only"
            f" {', '.join(_HEAD_ACTIVATIONS)} are supported.",
            hint="Choose another model, or write a backend that supports it"
            " (docs/writing-a-backend.md).",
        )
    return Head(
        name=f"{step.name}.linear",
        outputs=config.size("out_features"),
        inputs=config.size("in_features"),
        bias=config.get("bias", True) is True,
        activation=cast("Activation", activation),
    )
