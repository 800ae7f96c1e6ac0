"""How to run the layers of mlx-embeddings: one function for each architecture.

Shapes in comments: B texts, T tokens, D hidden size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import mlx.core as mx

from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture.

    `run` turns a model, token ids and mask, both `(B, T)`, into token vectors `(B, T, D)`.
    `expected` are the values in config.json that the layers take for granted. `thetas` maps the
    kinds of layer in Transformers 5 to the layers' names for the base of their rotary positions.
    """

    run: Callable[[Any, mx.array, mx.array], mx.array]
    expected: Mapping[str, object]
    thetas: Mapping[str, str] = field(default_factory=lambda: {"": "rope_theta"})

    def read(self, config: ModelConfig) -> dict[str, Any]:
        """Return config.json as mlx-embeddings wants it.

        Raises:
            ModelLoadError: it has a value that the layers would ignore.
        """
        config = config.changed(self._rotary(config))
        config.expect(**self.expected)
        return config.values

    def _rotary(self, config: ModelConfig) -> dict[str, Any]:
        """Return the `rope_parameters` of Transformers 5 under their older names."""
        stated = config.get("rope_parameters")
        if not stated:
            return {}
        older: dict[str, Any] = {}
        try:
            for kind, name in self.thetas.items():
                rope = stated[kind] if kind else stated
                older[name] = rope["rope_theta"]
                if rope.get("rope_type", "default") != "default":
                    older["rope_scaling"] = rope
        except (KeyError, TypeError, AttributeError):
            raise ModelLoadError(
                f"{config.path}: `rope_parameters` cannot be read: {stated!r}."
            ) from None
        return older


def visible(mask: mx.array, *, causal: bool = False, within: int | None = None) -> mx.array:
    """Return the attention mask: `(B, T)` -> `(B, 1, T, T)` bool, query by key.

    `within` is how far a token attends on either side. Every token attends to itself, padding too:
    the softmax over an empty row would be NaN.
    """
    place = mx.arange(mask.shape[1])
    distance = place[None, :] - place[:, None]  # (T, T): key - query
    seen = (mask != 0)[:, None, None, :]  # (B, 1, 1, T)
    if causal:
        seen = seen & (distance <= 0)
    if within is not None:
        seen = seen & (mx.abs(distance) <= within)
    return seen | (distance == 0)


def _modernbert(model: Any, token_ids: mx.array, mask: mx.array) -> mx.array:  # noqa: ANN401
    """Every third layer attends globally, the others locally. Source: arXiv:2412.13663."""
    everywhere = visible(mask)
    near = visible(mask, within=model.config.local_attention // 2)
    x = model.embeddings(token_ids)
    for layer in model.layers:
        (x,) = layer(x, everywhere, near)
    return cast("mx.array", model.final_norm(x))


def _qwen3(model: Any, token_ids: mx.array, mask: mx.array) -> mx.array:  # noqa: ANN401
    """A causal decoder. Source: arXiv:2506.05176."""
    seen = visible(mask, causal=True)
    x = model.embed_tokens(token_ids)
    for layer in model.layers:
        x = layer(x, seen)
    return cast("mx.array", model.norm(x))


def _llama_bidirec(model: Any, token_ids: mx.array, mask: mx.array) -> mx.array:  # noqa: ANN401
    """Llama without the causal mask. Source: arXiv:2405.17428, section 3.1."""
    seen = visible(mask)
    x = model.embed_tokens(token_ids)
    for layer in model.layers:
        x = layer(x, seen)
    return cast("mx.array", model.norm(x))


def _gemma3_text(model: Any, token_ids: mx.array, mask: mx.array) -> mx.array:  # noqa: ANN401
    """Gemma 3 without the causal mask; most layers are local. Source: arXiv:2509.20354."""
    everywhere = visible(mask)
    # A bidirectional window counts both sides (Hugging Face's Gemma3TextConfig).
    near = visible(mask, within=model.config.sliding_window // 2)
    x = model.embed_tokens(token_ids) * model.config.hidden_size**0.5
    for layer in model.layers:
        x = layer(x, near if layer.self_attn.is_sliding else everywhere)
    return cast("mx.array", model.norm(x))


FAMILIES: Final = {
    "gemma3_text": Family(
        run=_gemma3_text,
        expected={
            "hidden_activation": "gelu_pytorch_tanh",
            "use_bidirectional_attention": True,
            "attn_logit_softcapping": None,
            "rope_scaling": None,
        },
        thetas={"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    ),
    "llama_bidirec": Family(run=_llama_bidirec, expected={"hidden_act": "silu"}),
    "modernbert": Family(
        run=_modernbert,
        expected={"hidden_activation": "gelu", "rope_scaling": None},
        thetas={"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
    ),
    "qwen3": Family(
        run=_qwen3,
        expected={"hidden_act": "silu", "rope_scaling": None, "use_sliding_window": False},
    ),
}
