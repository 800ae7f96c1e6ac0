"""What sentence-transformers does to token vectors, from the files that it keeps beside a model.

`modules.json` lists the steps: Transformer, Pooling, perhaps Dense heads, perhaps Normalize.
Format: https://sbert.net/docs/package_reference/sentence_transformer/modules.html
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from emberd.backends.base import Pooling
from emberd.backends.config import Config, is_file_name, read_json, read_object
from emberd.errors import ModelLoadError

_POOLING_NAMES = {
    "mean_tokens": "mean",
    "cls_token": "cls",
    "lasttoken": "last",
}
"""What `*_Pooling/config.json` calls the poolings that we know; it may name others."""

_RUNNABLE_MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout"}

Activation = Literal["Identity", "Tanh", "ReLU", "GELU"]


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
    for path in sorted(folder.glob("*_Pooling/config.json")):
        values = read_object(path)
        flags = [key for key, value in values.items() if value is True]
        modes = {key.removeprefix("pooling_mode_") for key in flags if "pooling_mode_" in key}
        if isinstance(values.get("pooling_mode"), str):  # newer files name the one mode
            modes.add(values["pooling_mode"])
        found = {_POOLING_NAMES.get(mode, mode) for mode in modes}
        if found and found != {stated}:
            raise ModelLoadError(
                f"{path} says pooling {' + '.join(sorted(found))}, but the registry states"
                f" {stated}."
            )


def read_heads(folder: Path) -> tuple[Head, ...]:
    """Read the Dense steps of a sentence-transformers model, and refuse what nothing here runs."""
    path = folder / "modules.json"
    if not path.exists():
        return ()
    modules = read_json(path)
    try:
        steps = [(str(step["type"]).rpartition(".")[2], step.get("path", "")) for step in modules]
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(f"{path} is damaged: not a list of modules with types.") from None
    kinds = [kind for kind, _ in steps]
    if unknown := set(kinds) - _RUNNABLE_MODULES:
        raise ModelLoadError(
            f"{path} lists {', '.join(sorted(unknown))} after the encoder, which is not supported."
        )
    heads = [(at, name) for at, (kind, name) in enumerate(steps) if kind == "Dense"]
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
    return tuple(_head(folder / name) for _, name in heads)


def _head(step: Path) -> Head:
    """Read `config.json` of a Dense step."""
    config = Config(step / "config.json")
    config.expect(module_input_name="sentence_embedding", module_output_name="sentence_embedding")
    # A name of torch such as torch.nn.modules.linear.Identity; sentence-transformers' own default.
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in get_args(Activation):
        raise ModelLoadError(
            f"{config.path}: activation_function is {activation}; only"
            f" {', '.join(get_args(Activation))} are known."
        )
    return Head(
        name=f"{step.name}.linear",
        outputs=config.size("out_features"),
        inputs=config.size("in_features"),
        bias=config.get("bias", True) is True,
        activation=cast("Activation", activation),
    )
