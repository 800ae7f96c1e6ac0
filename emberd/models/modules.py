"""The steps of a model, as its modules.json lists them: Transformer, Pooling, Dense, Normalize.

The format is that of sentence-transformers; how it reads them was taken from version 6.2,
`sentence_transformer/modules/pooling.py`.
"""

import glob
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.files import is_file
from emberd.models.json_files import MEND, is_there, read_json, read_object
from emberd.registry.spec import is_below

TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Where the Transformer step keeps its options: the first of these that is not empty."""

_POOLINGS = {
    "mean_tokens": "mean",
    "cls_token": "cls",
    "lasttoken": "last",
}
"""Poolings that have other names in the Pooling step's files than in the registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry of modules.json: its kind, such as `Pooling`, and its folder inside the model's.

    `module` is the Python module that defines it, such as `sentence_transformers.models`.
    """

    kind: str
    path: str
    module: str


def read_steps(folder: Path) -> tuple[Step, ...] | None:
    """Return the steps in the order of modules.json; None if there is no such file.

    Format: https://sbert.net/docs/package_reference/sentence_transformer/modules.html
    """
    path = folder / "modules.json"
    if not is_there(path):
        return None
    modules = read_json(path)
    try:
        return tuple(step_of(str(step["type"]), str(step.get("path", ""))) for step in modules)
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(
            f"{path} is damaged: not a list of modules with types.", hint=MEND
        ) from None


def step_of(type_name: str, path: str) -> Step:
    """Return the step of a type such as `sentence_transformers.models.Pooling`."""
    module, _, kind = type_name.rpartition(".")
    return Step(kind=kind, path=path, module=module)


def listed_heads(folder: Path) -> set[str]:
    """Return glob patterns of the files of Dense steps; none if the list of steps is damaged."""
    with suppress(ModelLoadError):
        heads = (step.path for step in read_steps(folder) or () if step.kind == "Dense")
        return {f"{glob.escape(path)}/*" for path in heads}
    return set()


def listed_shards(folder: Path) -> set[str]:
    """Return glob patterns of the weights that the index names; none if it is damaged."""
    index = folder / "model.safetensors.index.json"
    with suppress(ModelLoadError, LookupError, AttributeError):
        if is_file(index) and not is_file(folder / "model.safetensors"):
            return {glob.escape(str(name)) for name in read_object(index)["weight_map"].values()}
    return set()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingFile:
    """The options of the Pooling step; `modes` is empty if unstated, and several are joined."""

    path: Path | None = None
    modes: frozenset[str] = frozenset()
    include_prompt: bool = True


def read_pooling(folder: Path) -> PoolingFile:
    """Return what the file of the Pooling step says, in the registry's names."""
    steps = read_steps(folder) or ()
    if any(step.kind == "StaticEmbedding" for step in steps):
        return PoolingFile(path=folder / "modules.json", modes=frozenset({"mean"}))
    listed = [step.path for step in steps if step.kind == "Pooling"]
    named = [folder / path / "config.json" for path in listed if path and is_below(path)]
    files = [path for path in named if is_there(path)]
    path = next(iter(files or sorted(folder.glob("*_Pooling/config.json"))), None)
    if path is None:
        return PoolingFile()
    values = read_object(path)
    stated = values.get("pooling_mode")  # newer files; older ones have a flag for each
    flags = {key: value for key, value in values.items() if key.startswith("pooling_mode_")}
    if isinstance(stated, str):
        modes = {stated}
    elif isinstance(stated, list):
        modes = set(map(str, stated))
    else:
        modes = {key.removeprefix("pooling_mode_") for key, value in flags.items() if value is True}
        modes = modes or {"mean" for _ in flags}
    return PoolingFile(
        path=path,
        modes=frozenset(_POOLINGS.get(mode, mode) for mode in modes),
        include_prompt=values.get("include_prompt") is not False,
    )


def old_layout(folder: Path, elsewhere: str) -> ModelLoadError:
    """Return the error for an encoder in the subfolder `elsewhere`."""
    return ModelLoadError(
        f"{folder} has its encoder in {elsewhere}, where old versions of sentence-transformers put"
        " it; emberd looks for it next to modules.json.",
        hint=f'Move the files in {folder / elsewhere} to {folder} and write `"path": ""` for the'
        " Transformer in modules.json; sentence-transformers accepts that too.",
    )
