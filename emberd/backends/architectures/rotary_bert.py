"""BERT with rotary positions and a gated feed-forward layer: nomic_bert, and Alibaba's GTE.

Sources: Nomic Embed, arXiv:2402.01613, and mGTE, arXiv:2407.19669; names of tensors and keys of
config.json as in their published checkpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from emberd.backends.architectures.base import Transformer, read_activation, read_transformer
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError

_GPT2_NAMES: Final[Mapping[str, str]] = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}
"""Where nomic_bert's config.json has both names, the first is its authors' and the one that counts:
the other was added for Transformers 5, with the 2,048 tokens that the model was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryBert(Transformer):
    """Post-norm layers without position embeddings; linear layers have a bias if it is stored.

    `theta` and `stretch` say how fast which pairs of numbers turn; see `Rotary` in the backends.
    """

    gate_is_stacked: ClassVar[bool]
    """Whether one tensor has the rows of the values and then those of the gate."""

    type_vocab_size: int
    layer_norm_eps: float
    theta: float
    stretch: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NomicBert(RotaryBert):
    """nomic-embed-text v1 and v1.5; v2 is a mixture of experts, which this is not."""

    prefixes: ClassVar[tuple[str, ...]] = ("bert.", "nomic_bert.", "model.")
    gate_is_stacked: ClassVar[bool] = False

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (experts, norms before the layers, positions that are scaled by the longest text).
        """
        stated = {ours: config.get(theirs) for theirs, ours in _GPT2_NAMES.items()}
        config = config.changed({key: value for key, value in stated.items() if value is not None})
        config.expect(num_experts=0)  # first, as it says most of what is unlike
        config.expect(
            activation_function="swiglu",
            hidden_act="silu",
            causal=False,
            parallel_block=False,
            prenorm=False,
            rotary_emb_fraction=1.0,
            rotary_emb_interleaved=False,
            rotary_emb_scale_base=None,
            rotary_scaling_factor=None,
            use_rms_norm=False,
        )
        sizes = _read_sizes(config)
        if config.get("pad_vocab_size_multiple"):
            sizes["vocab_size"] += -sizes["vocab_size"] % config.size("pad_vocab_size_multiple")
        rope = _stated_rope(config)
        theta = config.get("rotary_emb_base", rope.get("rope_theta"))
        if (kind := rope.get("rope_type", "default")) != "default":
            raise ModelLoadError(
                f"{config.path}: rope_type is {kind!r}; only 'default' is supported."
            )
        return cls(**sizes, activation="SiLU", theta=config.positive("rotary_emb_base", theta))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gte(RotaryBert):
    """GTE in English (v1.5) and many languages, and arctic-embed-m-v2: `new`, or `gte`."""

    prefixes: ClassVar[tuple[str, ...]] = ("new.", "gte.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {
        "embeddings.LayerNorm.": "emb_ln.",
        "encoder.layer.": "encoder.layers.",
        "attention.qkv_proj.": "attn.Wqkv.",
        "attention.o_proj.": "attn.out_proj.",
        "attn_ln.": "norm1.",
        "mlp.up_gate_proj.": "mlp.fc1.",
        "mlp.down_proj.": "mlp.fc2.",
        "mlp_ln.": "norm2.",
    }
    gate_is_stacked: ClassVar[bool] = True

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (position embeddings, another norm, another scaling of the positions).
        """
        config.expect(
            layer_norm_type="layer_norm",
            logn_attention_scale=False,
            pack_qkv=True,
            position_embedding_type="rope",
        )
        sizes = _read_sizes(config)
        head_size = sizes["hidden_size"] // sizes["num_attention_heads"]
        rope = _stated_rope(config)
        theta = config.positive("rope_theta", rope.get("rope_theta", config.get("rope_theta")))
        stretch = 1.0
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "ntk" and rope.get("mixed_b") is None:
            # Fixed NTK scaling, formula 6 of https://kexue.fm/archives/9706: for all lengths.
            factor = config.positive("rope_scaling.factor", rope.get("factor"))
            theta, stretch = theta * factor, factor ** (2 / head_size)
        elif kind != "default":
            raise ModelLoadError(
                f"{config.path}: the scaling of rotary positions is {rope!r}; only 'ntk' without"
                " mixed_b is supported."
            )
        return cls(
            **sizes,
            activation=read_activation(config),
            theta=theta,
            stretch=stretch,
        )


def _read_sizes(config: ModelConfig) -> dict[str, Any]:
    """Return the fields that are read in the same way for all.

    Raises:
        ModelLoadError: one is missing or impossible.
    """
    types = config.get("type_vocab_size")  # 0: there is no table
    return read_transformer(config) | {
        "type_vocab_size": 0 if types == 0 else config.size("type_vocab_size"),
        "layer_norm_eps": config.number("layer_norm_eps", default=1e-12),
    }


def _stated_rope(config: ModelConfig) -> dict[str, Any]:
    """Return `rope_parameters`, the name in Transformers 5, or `rope_scaling`; empty if neither."""
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(stated, dict):
        raise ModelLoadError(f"{config.path}: rope_parameters is {stated!r}, not a mapping.")
    return stated
