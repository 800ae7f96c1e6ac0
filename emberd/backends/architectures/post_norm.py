"""The sizes of BERT and of those that differ from it in positions or names only."""

from dataclasses import dataclass
from typing import Any

from emberd.backends.architectures.base import Architecture, read_activation, read_heads
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class PostNorm(Architecture):
    """Token and position embeddings, then post-norm layers. Source: arXiv:1706.03762."""

    max_position_embeddings: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float
    activation: Activation

    @property
    def head_size(self) -> int:
        """Length of one attention head's part of a token vector."""
        return self.hidden_size // self.num_attention_heads


def read_sizes(config: ModelConfig, padding_id: object) -> dict[str, Any]:
    """Return the fields of `PostNorm`.

    Raises:
        ModelLoadError: one is missing or impossible.
    """
    positions = config.size("max_position_embeddings")
    first = 0
    if padding_id is not None:
        if not isinstance(padding_id, int) or not 0 <= padding_id < positions - 1:
            raise ModelLoadError(f"{config.path}: pad_token_id is {padding_id!r}.")
        first = padding_id + 1
    hidden_size = config.size("hidden_size")
    return {
        "model_type": config.get("model_type"),
        "vocab_size": config.size("vocab_size"),
        "hidden_size": hidden_size,
        "max_tokens": positions - first,
        "max_position_embeddings": positions,
        "padding_id": padding_id,
        "num_hidden_layers": config.size("num_hidden_layers"),
        "num_attention_heads": read_heads(config, hidden_size),
        "intermediate_size": config.size("intermediate_size"),
        "layer_norm_eps": config.number("layer_norm_eps", default=1e-12),
        "activation": read_activation(config),
    }
