"""How to run the layers of mlx-embeddings: one function for each architecture.

Shapes in comments: B texts, T tokens, D hidden size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import mlx.core as mx

from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture.

    `run` turns a model, token ids and mask, both `(B, T)`, into token vectors `(B, T, D)`.
    `expected` are the values in config.json that the layers take for granted.
    """

    run: Callable[[Any, mx.array, mx.array], mx.array]
    expected: Mapping[str, object]

    def read(self, config: ModelConfig) -> dict[str, Any]:
        """Return config.json as mlx-embeddings wants it.

        Raises:
            ModelLoadError: it has a value that the layers would ignore.
        """
        config = config.changed(_rotary(config))
        config.expect(**self.expected)
        return config.values


def _rotary(config: ModelConfig) -> dict[str, Any]:
    """Return the `rope_parameters` of Transformers 5 under their older names."""
    rope = config.get("rope_parameters")
    if not rope:
        return {}
    try:
        older = {"rope_theta": rope["rope_theta"]}
        scaled = rope.get("rope_type", "default") != "default"
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(
            f"{config.path}: `rope_parameters` cannot be read: {rope!r}."
        ) from None
    return older | ({"rope_scaling": rope} if scaled else {})


def visible(mask: mx.array) -> mx.array:
    """Return the attention mask: `(B, T)` -> `(B, 1, T, T)` bool, query by key.

    Every token attends to itself, padding too: the softmax over an empty row would be NaN.
    """
    place = mx.arange(mask.shape[1])
    return (mask != 0)[:, None, None, :] | (place[:, None] == place)


def _llama_bidirec(model: Any, token_ids: mx.array, mask: mx.array) -> mx.array:  # noqa: ANN401
    """Llama without the causal mask. Source: arXiv:2405.17428, section 3.1."""
    seen = visible(mask)
    x = model.embed_tokens(token_ids)
    for layer in model.layers:
        x = layer(x, seen)
    return cast("mx.array", model.norm(x))


FAMILIES: Final = {
    "llama_bidirec": Family(run=_llama_bidirec, expected={"hidden_act": "silu"}),
}
