"""The sizes of Qwen 3."""

from dataclasses import dataclass
from typing import Self

from emberd.backends.architectures.base import read_activation
from emberd.backends.architectures.decoder import Decoder, read_sizes
from emberd.backends.architectures.layer_kinds import read_local, read_theta
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3(Decoder):
    """A causal decoder. Sources: arXiv:2505.09388 and, for its embeddings, 2506.05176."""

    theta: float

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant (biases,
                local layers, scaled positions).
        """
        config.expect(use_sliding_window=False)
        sizes = read_sizes(config)
        if any(read_local(config, sizes["num_hidden_layers"], lambda _: False)):
            raise ModelLoadError(f"{config.path}: layer_types has local layers: not supported.")
        return cls(
            **sizes,
            activation=read_activation(config, default="silu"),
            theta=read_theta(config, "rope_theta", 10_000.0),
        )
