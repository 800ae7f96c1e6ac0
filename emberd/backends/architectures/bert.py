"""The sizes of BERT, RoBERTa and XLM-RoBERTa."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import expect_one_logit, table_of
from emberd.backends.architectures.post_norm import WORDS, PostNorm, read_sizes
from emberd.backends.base import Pooling
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Head
from emberd.backends.sparse import MaskedLM, TokenWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert(PostNorm):
    """BERT. Source: arXiv:1810.04805, section 3."""

    prefixes: ClassVar[tuple[str, ...]] = ("bert.", "roberta.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {  # conversions from TensorFlow
        "LayerNorm.gamma": "LayerNorm.weight",
        "LayerNorm.beta": "LayerNorm.bias",
    }
    tokenizer_class: ClassVar[str] = "BertTokenizer"

    classifier_layers: ClassVar[tuple[str, str]] = ("pooler.dense", "classifier")

    type_vocab_size: int

    def classifier(self, config: ModelConfig, pooling: Pooling) -> tuple[Head, ...]:
        """Return BERT's pooler and classifier, or RoBERTa's classification head.

        Source: transformers' `BertForSequenceClassification`, `RobertaClassificationHead`.
        """
        expect_one_logit(config, pooling)
        first, last = self.classifier_layers
        size = self.hidden_size
        return (
            Head(name=first, outputs=size, inputs=size, activation="Tanh"),
            Head(name=last, outputs=1, inputs=size),
        )

    def masked_lm(self, config: ModelConfig) -> MaskedLM:
        """Return BERT's head. Source: transformers' `BertLMPredictionHead`."""
        name = "cls.predictions"
        return MaskedLM(
            dense=f"{name}.transform.dense",
            activation=self.activation,
            norm=f"{name}.transform.LayerNorm",
            norm_eps=self.layer_norm_eps,
            decoder=table_of(config, WORDS, f"{name}.decoder"),
            bias=(f"{name}.bias", f"{name}.decoder.bias"),
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
        )

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

    classifier_layers: ClassVar[tuple[str, str]] = ("classifier.dense", "classifier.out_proj")
    tokenizer_class: ClassVar[str] = ""

    def masked_lm(self, config: ModelConfig) -> MaskedLM:
        """Return RoBERTa's head. Source: transformers' `RobertaLMHead`, whose GELU is fixed."""
        return MaskedLM(
            dense="lm_head.dense",
            activation="GELU",
            norm="lm_head.layer_norm",
            norm_eps=self.layer_norm_eps,
            decoder=table_of(config, WORDS, "lm_head.decoder"),
            bias=("lm_head.bias", "lm_head.decoder.bias"),
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
        )

    def token_weights(self, config: ModelConfig) -> TokenWeights:
        """Return BGE-M3's layer. Source of the ids: transformers' `XLMRobertaTokenizer`."""
        special = (0, 1, 2, 3)  # <s>, <pad>, </s>, <unk>
        return TokenWeights(
            hidden_size=self.hidden_size, vocab_size=self.vocab_size, unused=special
        )

    @classmethod
    def padding(cls, config: ModelConfig) -> object:
        """Return the id after which positions start: 1, unless config.json says otherwise."""
        stated = config.get("pad_token_id")
        return 1 if stated is None else stated
