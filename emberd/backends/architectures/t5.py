"""The sizes of T5's encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import Architecture, read_activation
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class T5(Architecture):
    """T5's encoder (arXiv:1910.10683, section 2.1), and version 1.1 (2002.05202).

    Distances fall into the 32 buckets of `relative_positions`; one table, shared by all layers, has
    a bias for each bucket and head. Scores are not divided by the square root of the head size.

    `is_gated`: whether there are two first linear layers, whose results are multiplied.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("encoder.",)
    other_names: ClassVar[Mapping[str, str]] = {"embed_tokens.": "shared."}
    takes_f16: ClassVar[bool] = False
    usual_positions: ClassVar[int | None] = 512  # what the published ones were trained with

    num_layers: int
    num_heads: int
    head_size: int
    intermediate_size: int
    eps: float
    activation: Activation
    is_gated: bool

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        T5 has no table of positions; `n_positions` is the length that it was trained with.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant.
        """
        config.expect(relative_attention_num_buckets=32, relative_attention_max_distance=128)
        forward = config.get("feed_forward_proj", "relu")
        *gated, name = str(forward).split("-", 1)
        if gated not in ([], ["gated"]):
            raise ModelLoadError(f"{config.path}: feed_forward_proj is {forward!r}.")
        # transformers' T5Config means the tanh approximation by this name
        name = "gelu_new" if gated and name == "gelu" else name
        return cls(
            model_type=str(config.get("model_type")),
            vocab_size=config.size("vocab_size"),
            hidden_size=config.size("d_model"),
            max_tokens=cls.positions(config) or config.size("n_positions"),
            num_layers=config.size("num_layers"),
            num_heads=config.size("num_heads"),
            head_size=config.size("d_kv"),
            intermediate_size=config.size("d_ff"),
            eps=config.number("layer_norm_epsilon", default=1e-6),
            activation=read_activation(
                config.changed({"feed_forward_proj": name}), "feed_forward_proj"
            ),
            is_gated=bool(gated),
        )
