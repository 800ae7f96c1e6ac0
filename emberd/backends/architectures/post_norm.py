"""The sizes of BERT and of those that differ from it in positions or names only."""

from dataclasses import dataclass
from typing import Any

from emberd.backends.architectures.base import Transformer, read_activation, read_transformer
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError

WORDS = "embeddings.word_embeddings"
"""The table of token vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostNorm(Transformer):
    """Token and position embeddings, then post-norm layers. Source: arXiv:1706.03762."""

    max_position_embeddings: int
    layer_norm_eps: float


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
    return read_transformer(config) | {
        "max_tokens": positions - first,
        "max_position_embeddings": positions,
        "padding_id": padding_id,
        "layer_norm_eps": config.number("layer_norm_eps", default=1e-12),
        "activation": read_activation(config),
    }
