"""The sizes of BERT, RoBERTa and XLM-RoBERTa."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.post_norm import PostNorm, read_sizes
from emberd.backends.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert(PostNorm):
    """BERT. Source: arXiv:1810.04805, section 3."""

    prefixes: ClassVar[tuple[str, ...]] = ("bert.", "roberta.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {  # conversions from TensorFlow
        "LayerNorm.gamma": "LayerNorm.weight",
        "LayerNorm.beta": "LayerNorm.bias",
    }
    tokenizer_class: ClassVar[str] = "BertTokenizer"

    type_vocab_size: int

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (another activation, relative positions, a decoder).
        """
        config.expect(position_embedding_type="absolute", is_decoder=False)
        return cls(
            **read_sizes(config, cls.padding(config)),
            type_vocab_size=config.size("type_vocab_size"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Roberta(Bert):
    """RoBERTa (arXiv:1907.11692) and XLM-RoBERTa (1911.02116): BERT with other positions."""

    tokenizer_class: ClassVar[str] = ""

    @classmethod
    def padding(cls, config: ModelConfig) -> object:
        """Return the id after which positions start: 1, unless config.json says otherwise."""
        stated = config.get("pad_token_id")
        return 1 if stated is None else stated
