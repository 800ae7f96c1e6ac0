"""Which architecture a checkpoint has, and its sizes, from config.json.

An architecture is a class beside this file, and its arithmetic a module of the same name in each
backend that runs it. To add one, write these files, and its line in `_NATIVE`.
"""

from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast, overload

from emberd.backends.architectures.base import Architecture
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError

if TYPE_CHECKING:
    from emberd.backends.architectures.bert import Bert

_NATIVE: Final[dict[str, str]] = {
    "bert": "bert:Bert",
    "distilbert": "distilbert:DistilBert",
    "gemma3_text": "gemma3_text:Gemma3",
    "gte": "rotary_bert:Gte",
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
"""`model_type` -> module and class; a start imports only the one that it needs."""

NATIVE: Final = frozenset(_NATIVE)
"""The `model_type`s that our own backends implement."""

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
    """Return the architecture named by `model_type`, which must be one that `backend` `runs`.

    Raises:
        ModelLoadError: it is not one of them, or its sizes are impossible.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in runs:
        raise ModelLoadError(
            f"{config.path}: model_type is {model_type!r}, but backend {backend} runs only"
            f" {', '.join(sorted(runs))}."
        )
    return class_of(model_type).read(config)


def class_of(model_type: object) -> type[Architecture]:
    """Return the class of sizes, and of tensors' names, for a `model_type`."""
    if not isinstance(model_type, str) or model_type not in _NATIVE:
        return Architecture
    module, _, name = _NATIVE[model_type].partition(":")
    return cast(
        "type[Architecture]",
        getattr(import_module(f"emberd.backends.architectures.{module}"), name),
    )
