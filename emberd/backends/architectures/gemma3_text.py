"""The sizes of the Gemma 3 that makes embeddings."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import read_activation
from emberd.backends.architectures.decoder import Decoder, read_sizes
from emberd.backends.architectures.layer_kinds import (
    GLOBAL,
    LOCAL,
    LayerKinds,
    read_local,
    read_theta,
)
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma3(Decoder):
    """Gemma 3 without the causal mask; most layers are local.

    Sources: arXiv:2503.19786 and, for its embeddings, 2509.20354.
    """

    add_to_scale: ClassVar[float] = 1.0

    query_pre_attn_scalar: float
    kinds: LayerKinds

    @property
    def attention_scale(self) -> float:
        """What attention scores are multiplied by."""
        return 1 / math.sqrt(self.query_pre_attn_scalar)

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant (causal,
                capped scores, scaled positions).
        """
        config.expect(attn_logit_softcapping=None)
        if config.get("use_bidirectional_attention") is not True:  # by default it is causal
            raise ModelLoadError(
                f"{config.path}: use_bidirectional_attention is"
                f" {config.get('use_bidirectional_attention')!r}; only True is supported."
            )
        sizes = read_sizes(config)
        # Source for these defaults and the halved window: transformers' Gemma3TextConfig.
        pattern = config.size("sliding_window_pattern", default=6)
        scalar = config.get("query_pre_attn_scalar", 256)
        layers = sizes["num_hidden_layers"]
        return cls(
            **sizes,
            activation=read_activation(config, "hidden_activation", "gelu_pytorch_tanh"),
            query_pre_attn_scalar=config.positive("query_pre_attn_scalar", scalar),
            kinds=LayerKinds(
                local=read_local(config, layers, lambda index: (index + 1) % pattern != 0),
                within=config.size("sliding_window", default=4096) // 2,
                global_theta=read_theta(config, "rope_theta", 1_000_000.0, kind=GLOBAL),
                local_theta=read_theta(config, "rope_local_base_freq", 10_000.0, kind=LOCAL),
            ),
        )
