"""The sizes of encoders that are built like today's decoders."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from emberd.backends.architectures.base import Architecture
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder(Architecture):
    """Pre-norm layers with RMS norms (of queries and keys, too), grouped heads, and a gate.

    Sources: arXiv:1910.07467 (RMS norm), 2010.04245 (queries and keys), 2305.13245 (grouped heads),
    2002.05202 (gate).
    """

    takes_f16: ClassVar[bool] = False
    add_to_scale: ClassVar[float] = 0.0
    """What is added to the stored scales of norms."""

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    rms_norm_eps: float
    activation: Activation

    @property
    def attention_scale(self) -> float:
        """What attention scores are multiplied by."""
        return 1 / math.sqrt(self.head_size)


def read_sizes(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of `Decoder`, except `activation`, whose key has several names.

    Raises:
        ModelLoadError: one is missing or impossible, or linear layers of attention have biases.
    """
    config.expect(attention_bias=False)
    heads, groups = config.size("num_attention_heads"), config.size("num_key_value_heads")
    if heads % groups:
        raise ModelLoadError(
            f"{config.path}: num_attention_heads {heads} is not a multiple of num_key_value_heads"
            f" {groups}."
        )
    return {
        "model_type": config.get("model_type"),
        "vocab_size": config.size("vocab_size"),
        "hidden_size": config.size("hidden_size"),
        "max_tokens": config.size("max_position_embeddings"),
        "num_hidden_layers": config.size("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_size": config.size("head_dim"),
        "intermediate_size": config.size("intermediate_size"),
        "rms_norm_eps": config.number("rms_norm_eps", default=1e-6),
    }
