"""What published checkpoints have that transformers has under other names, or not at all.

Names and shapes of tensors: of nomic-ai's, from `modeling_hf_nomic_bert.py` in
nomic-ai/contrastors; of Alibaba's, from `modeling.py` in the Hub repository Alibaba-NLP/new-impl.
`ntk` is what the latter does to rotary positions (its class NTKScalingRotaryEmbedding), which
transformers 5.23 leaves out.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from transformers import GteConfig, GteModel, PreTrainedConfig
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

Shapes = Mapping[str, tuple[int, ...]]


def nomic_bert(config: PreTrainedConfig) -> Shapes:
    """Return the tensors of nomic-embed-text: biases only in the norms."""
    size, wide = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, size),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, size),
        "emb_ln.weight": (size,),
        "emb_ln.bias": (size,),
    }
    for layer in (f"encoder.layers.{index}" for index in range(config.num_hidden_layers)):
        shapes |= {
            f"{layer}.attn.Wqkv.weight": (3 * size, size),
            f"{layer}.attn.out_proj.weight": (size, size),
            f"{layer}.mlp.fc11.weight": (wide, size),
            f"{layer}.mlp.fc12.weight": (wide, size),
            f"{layer}.mlp.fc2.weight": (size, wide),
        } | {f"{layer}.norm{n}.{part}": (size,) for n in (1, 2) for part in ("weight", "bias")}
    return shapes


def gte(config: PreTrainedConfig) -> Shapes:
    """Return the tensors of GTE: `up_gate_proj` has no bias."""
    size, wide = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, size),
        "embeddings.LayerNorm.weight": (size,),
        "embeddings.LayerNorm.bias": (size,),
    }
    if config.type_vocab_size:
        shapes["embeddings.token_type_embeddings.weight"] = (config.type_vocab_size, size)
    for layer in (f"encoder.layer.{index}" for index in range(config.num_hidden_layers)):
        shapes |= {
            f"{layer}.attention.qkv_proj.weight": (3 * size, size),
            f"{layer}.attention.qkv_proj.bias": (3 * size,),
            f"{layer}.attention.o_proj.weight": (size, size),
            f"{layer}.attention.o_proj.bias": (size,),
            f"{layer}.mlp.up_gate_proj.weight": (2 * wide, size),
            f"{layer}.mlp.down_proj.weight": (size, wide),
            f"{layer}.mlp.down_proj.bias": (size,),
        } | {
            f"{layer}.{at}_ln.{part}": (size,)
            for at in ("attn", "mlp")
            for part in ("weight", "bias")
        }
    return shapes


def ntk(config: PreTrainedConfig, *_: object, **__: object) -> tuple[torch.Tensor, float]:
    """Return the speeds of the pairs of a head, `(S / 2,)`, and what cos and sin are scaled by.

    Formula 6 of https://kexue.fm/archives/9706, applied whatever the length of a text is.
    """
    rope, size = config.rope_parameters, config.hidden_size // config.num_attention_heads
    factor = rope["factor"]
    exponents = torch.arange(0, size, 2).float() / size
    return (rope["rope_theta"] * factor) ** -exponents / factor ** (2 / size), 1.0


class NewConfig(GteConfig):
    """GTE under the name that Alibaba's checkpoints give it."""

    model_type: ClassVar[str] = "new"


class NewModel(GteModel):
    """The model of `NewConfig`."""

    config_class = NewConfig


def register() -> None:
    """Teach transformers the rest of `new`."""
    ROPE_INIT_FUNCTIONS["ntk"] = ntk
    register_checkpoint_conversion_mapping("new", get_checkpoint_conversion_mapping("gte"))
