"""The sizes of BERT, RoBERTa and XLM-RoBERTa."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import expect_one_logit
from emberd.backends.architectures.post_norm import PostNorm, read_sizes
from emberd.backends.base import Pooling
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert(PostNorm):
    """BERT (arXiv:1810.04805, section 3), RoBERTa (1907.11692) and XLM-RoBERTa (1911.02116)."""

    prefixes: ClassVar[tuple[str, ...]] = ("bert.", "roberta.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {  # conversions from TensorFlow
        "LayerNorm.gamma": "LayerNorm.weight",
        "LayerNorm.beta": "LayerNorm.bias",
    }

    type_vocab_size: int

    def classifier(self, config: ModelConfig, pooling: Pooling) -> tuple[Head, ...]:
        """Return BERT's pooler and classifier, or RoBERTa's classification head.

        Source: transformers' `BertForSequenceClassification`, `RobertaClassificationHead`.
        """
        expect_one_logit(config, pooling)
        names = ("pooler.dense", "classifier")
        if self.model_type != "bert":
            names = ("classifier.dense", "classifier.out_proj")
        size = self.hidden_size
        return (
            Head(name=names[0], outputs=size, inputs=size, activation="Tanh"),
            Head(name=names[1], outputs=1, inputs=size),
        )

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (another activation, relative positions, a decoder).
        """
        config.expect(position_embedding_type="absolute", is_decoder=False)
        from_zero = config.get("model_type") == "bert"
        padding_id = None if from_zero else config.get("pad_token_id", 1)
        return cls(**read_sizes(config, padding_id), type_vocab_size=config.size("type_vocab_size"))
