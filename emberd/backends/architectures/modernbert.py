"""The sizes of ModernBERT."""

from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import Architecture, read_activation, read_heads
from emberd.backends.architectures.layer_kinds import GLOBAL, LOCAL, read_local, read_theta
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class ModernBert(Architecture):
    """Pre-norm layers without biases, most of them local. Source: arXiv:2412.13663.

    `local` says of each layer whether a token attends only to those up to `within` tokens away.
    """

    takes_f16: ClassVar[bool] = False

    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    norm_eps: float
    activation: Activation
    local: tuple[bool, ...]
    within: int
    global_theta: float
    local_theta: float

    @property
    def head_size(self) -> int:
        """Length of one attention head's part of a token vector."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (biases, scaled positions).
        """
        config.expect(attention_bias=False, mlp_bias=False, norm_bias=False)
        hidden_size, layers = config.size("hidden_size"), config.size("num_hidden_layers")
        # Source for this default and those below: transformers' ModernBertConfig.
        every = config.size("global_attn_every_n_layers", default=3)
        return cls(
            model_type="modernbert",
            vocab_size=config.size("vocab_size"),
            hidden_size=hidden_size,
            max_tokens=config.size("max_position_embeddings"),
            num_hidden_layers=layers,
            num_attention_heads=read_heads(config, hidden_size),
            intermediate_size=config.size("intermediate_size"),
            norm_eps=config.number("norm_eps", default=1e-5),
            activation=read_activation(config, "hidden_activation"),
            local=read_local(config, layers, lambda index: index % every != 0),
            within=config.size("local_attention", default=128) // 2,
            global_theta=read_theta(config, "global_rope_theta", 160_000.0, kind=GLOBAL),
            local_theta=read_theta(config, "local_rope_theta", 10_000.0, kind=LOCAL),
        )
