"""Architectures that emberd does not implement itself, run with mlx-embeddings' layers.

Only its layers are used. They get weights at the stated precision from `Checkpoint`, and masks from
`families`: the library's own may hide everything from a padding token, whose softmax is then NaN.
Its own choice of pooling is not used either.

Its `__init__` imports transformers and OpenCV, which takes seconds; a model's module does not.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.utils import tree_flatten, tree_unflatten

from emberd.backends.architectures.base import Architecture
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.mlx.families import FAMILIES
from emberd.backends.mlx.layers import Weights
from emberd.backends.mlx.packed import Packed
from emberd.errors import BackendBrokenError, ModelLoadError
from emberd.installing import pip


class WrappedModel:
    """A model of mlx-embeddings with our weights."""

    def __init__(
        self, architecture: Architecture, checkpoint: Checkpoint, weights: Weights
    ) -> None:
        family = FAMILIES[architecture.model_type]
        arguments = family.read(checkpoint.config)
        self._model = _make(architecture.model_type, arguments, checkpoint)
        self._run = family.run
        _fill(self._model, weights)

    def __call__(self, batch: Packed) -> mx.array:
        """Return the token vectors, `(B, T, D)`, of a batch with one text in each row."""
        mask = mx.ones_like(batch.token_ids) if batch.mask is None else batch.mask
        return self._run(self._model, batch.token_ids, mask)


def _fill(model: Any, weights: Weights) -> None:  # noqa: ANN401 - no types
    """Replace linear layers and embeddings with ours, and load the rest: the norms.

    MLX is lazy, so the random weights of a new model are never drawn.
    """
    for name, parent in model.named_modules():
        for key, layer in list(parent.items()):
            path = f"{name}.{key}" if name else key
            if isinstance(layer, Linear):
                linear = weights.linear(path, *layer.weight.shape, bias="bias" in layer)
                setattr(parent, key, linear)
            elif isinstance(layer, Embedding):
                setattr(parent, key, weights.embedding(path, *layer.weight.shape).rows)
    left: Any = tree_flatten(model.parameters())
    norms = [(name, weights.vector(name, values.size)) for name, values in left]
    model.update(tree_unflatten(norms))
    model.eval()


def _make(model_type: str, arguments: dict[str, Any], checkpoint: Checkpoint) -> Any:  # noqa: ANN401
    """Return the layers of a model, without the wrapper that mlx-embeddings puts around them."""
    module = _import(model_type)
    try:
        return module.Model(module.ModelArgs.from_dict(arguments)).model
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(
            f"{checkpoint.config.path}: mlx-embeddings cannot build {model_type} from it: {error}."
        ) from error


def _import(model_type: str) -> ModuleType:
    """Import a model's module of mlx-embeddings without the packages around it."""
    try:
        for package in ("mlx_embeddings", "mlx_lm"):
            _enter(package)
        return importlib.import_module(f"mlx_embeddings.models.{model_type}")
    except ImportError as error:
        raise BackendBrokenError(
            f"{model_type} needs mlx-embeddings on mlx, and it cannot be imported: {error}.",
            hint=f"Run `{pip('install', 'mlx-embeddings', 'mlx-lm')}`.",
        ) from error


def _enter(package: str) -> None:
    """Make the modules of a package importable without running its `__init__`."""
    if package in sys.modules:
        return
    if spec := importlib.util.find_spec(package):
        sys.modules[package] = importlib.util.module_from_spec(spec)
