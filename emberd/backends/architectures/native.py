"""Which architecture a checkpoint has, and its sizes, from config.json.

An architecture is a class beside this file, and its arithmetic a module of the same name in each
backend that runs it. To add one, write these files, and its line in `_NATIVE`. Its name is the
`model_type`, unless that names several, which `_VARIANTS` tells apart.
"""

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, overload

from emberd.backends.architectures.base import Architecture
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError
from emberd.files import is_file
from emberd.models.local import ONNX_FILE

if TYPE_CHECKING:
    from emberd.backends.architectures.bert import Bert

_NATIVE: Final[dict[str, str]] = {
    "bert": "bert:Bert",
    "deberta-v2": "deberta_v2:DebertaV2",
    "distilbert": "distilbert:DistilBert",
    "gemma3_text": "gemma3_text:Gemma3",
    "gte": "rotary_bert:Gte",
    "jina_bert": "jina_bert:JinaBert",
    "model2vec": "static:Static",
    "modernbert": "modernbert:ModernBert",
    "mpnet": "mpnet:MPNet",
    "new": "rotary_bert:Gte",
    "nomic_bert": "rotary_bert:NomicBert",
    "qwen3": "qwen3:Qwen3",
    "roberta": "bert:Roberta",
    "t5": "t5:T5",
    "xlm-roberta": "bert:Roberta",
}
"""Name -> module and class; a start imports only the one that it needs."""

_VARIANTS: Final[dict[tuple[str, str, str], str]] = {
    ("bert", "position_embedding_type", "alibi"): "jina_bert",
}
"""A `model_type`, a key of config.json, and its value -> the name of that architecture."""

NATIVE: Final = frozenset(_NATIVE)
"""The architectures that our own backends implement."""

STATIC_EMBEDDING: Final = "model2vec"
"""The one for sentence-transformers' StaticEmbedding, which has no config.json of its own."""


@overload
def read_architecture(config: ModelConfig, *, backend: str) -> "Bert": ...
@overload
def read_architecture(
    config: ModelConfig, *, backend: str, runs: Collection[str]
) -> Architecture: ...
def read_architecture(
    config: ModelConfig, *, backend: str, runs: Collection[str] = ("bert",)
) -> Architecture:
    """Return the architecture of a checkpoint, which must be one that `backend` `runs`.

    Raises:
        ModelLoadError: it is not one of them, or its sizes are impossible.
    """
    name, stated = name_of(config), config.get("model_type")
    if name not in runs:
        variant = "" if name == str(stated) else f" (the architecture {name})"
        code = " (its own Python code, `auto_map`, is never run)" if config.get("auto_map") else ""
        raise ModelLoadError(
            f"{config.path}: model_type is {stated!r}{variant}{code}, but backend {backend} runs"
            f" only {', '.join(sorted(runs))}.",
            hint=onnx_hint(config.path.parent),
        )
    return class_of(config).read(config)


def onnx_hint(folder: Path) -> str:
    """Say how to run a model of any architecture, if it has what that takes."""
    if is_file(folder / ONNX_FILE):
        return f"There is {folder / ONNX_FILE}: run that with `backend: onnx` in the model's entry."
    return f"A model of any architecture runs with `backend: onnx`, if it has a file {ONNX_FILE}."


def name_of(config: ModelConfig) -> str:
    """Return the name of a checkpoint's architecture, whether any backend runs it or not."""
    model_type = str(config.get("model_type"))
    for (general, key, value), name in _VARIANTS.items():
        if model_type == general and config.get(key) == value:
            return name
    return model_type


def class_of(config: ModelConfig) -> type[Architecture]:
    """Return the class of sizes, and of tensors' names, of a checkpoint's architecture."""
    place = _NATIVE.get(name_of(config))
    if place is None:
        return Architecture
    module, _, name = place.partition(":")
    return cast(
        "type[Architecture]",
        getattr(import_module(f"emberd.backends.architectures.{module}"), name),
    )
