"""The sizes of DistilBERT."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import read_activation, read_heads, table_of
from emberd.backends.architectures.post_norm import WORDS, PostNorm
from emberd.backends.config import ModelConfig
from emberd.backends.sparse import MaskedLM


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilBert(PostNorm):
    """BERT without segments, under other names. Source: arXiv:1910.01108, section 3."""

    prefixes: ClassVar[tuple[str, ...]] = ("distilbert.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {
        "transformer.layer.": "encoder.layer.",
        "attention.q_lin.": "attention.self.query.",
        "attention.k_lin.": "attention.self.key.",
        "attention.v_lin.": "attention.self.value.",
        "attention.out_lin.": "attention.output.dense.",
        "sa_layer_norm.": "attention.output.LayerNorm.",
        "ffn.lin1.": "intermediate.dense.",
        "ffn.lin2.": "output.dense.",
        "output_layer_norm.": "output.LayerNorm.",
    }
    tokenizer_class: ClassVar[str] = "BertTokenizer"

    def masked_lm(self, config: ModelConfig) -> MaskedLM:
        """Return the head. Source: transformers' `DistilBertForMaskedLM`."""
        return MaskedLM(
            dense="vocab_transform",
            activation=self.activation,
            norm="vocab_layer_norm",
            norm_eps=self.layer_norm_eps,
            decoder=table_of(config, WORDS, "vocab_projector"),
            bias=("vocab_projector.bias",),
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
        )

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or the activation is not supported.
        """
        positions = config.size("max_position_embeddings")
        return cls(
            model_type=str(config.get("model_type")),
            vocab_size=config.size("vocab_size"),
            hidden_size=config.size("dim"),
            max_tokens=positions,
            max_position_embeddings=positions,
            num_hidden_layers=config.size("n_layers"),
            num_attention_heads=read_heads(config, config.size("dim"), "n_heads"),
            intermediate_size=config.size("hidden_dim"),
            layer_norm_eps=1e-12,  # transformers' DistilBertModel, whatever the file says
            activation=read_activation(config, "activation"),
        )
