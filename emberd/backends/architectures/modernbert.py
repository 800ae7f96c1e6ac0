"""The sizes of ModernBERT."""

from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import (
    Transformer,
    expect_one_logit,
    read_activation,
    read_transformer,
    table_of,
)
from emberd.backends.architectures.layer_kinds import (
    GLOBAL,
    LOCAL,
    LayerKinds,
    read_local,
    read_theta,
)
from emberd.backends.base import Pooling
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Head
from emberd.backends.sparse import MaskedLM


@dataclass(frozen=True, slots=True, kw_only=True)
class ModernBert(Transformer):
    """Pre-norm layers without biases, most of them local. Source: arXiv:2412.13663."""

    takes_f16: ClassVar[bool] = False

    norm_eps: float
    kinds: LayerKinds

    @classmethod
    def classified(cls, config: ModelConfig) -> Pooling:
        """Return which pooling a classifier reads, as config.json has it."""
        stated: Pooling = config.get("classifier_pooling", "cls")
        return stated

    def classifier(self, config: ModelConfig, pooling: Pooling) -> tuple[Head, ...]:
        """Return the prediction head and the classifier.

        Source: transformers' `ModernBertForSequenceClassification`.
        """
        expect_one_logit(config, pooling, states=self.classified(config))
        config.expect(classifier_bias=False)
        size = self.hidden_size
        return (
            Head(
                name="head.dense",
                outputs=size,
                inputs=size,
                bias=False,
                activation=read_activation(config, "classifier_activation"),
                norm="head.norm",
                norm_eps=self.norm_eps,
            ),
            Head(name="classifier", outputs=1, inputs=size),
        )

    def masked_lm(self, config: ModelConfig) -> MaskedLM:
        """Return the prediction head. Source: transformers' `ModernBertForMaskedLM`."""
        config.expect(classifier_bias=False)
        return MaskedLM(
            dense="head.dense",
            dense_bias=False,
            activation=read_activation(config, "classifier_activation"),
            norm="head.norm",
            norm_bias=False,
            norm_eps=self.norm_eps,
            decoder=table_of(config, "embeddings.tok_embeddings", "decoder"),
            bias=("decoder.bias",) if config.get("decoder_bias", True) else (),
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
        )

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (biases, scaled positions).
        """
        config.expect(attention_bias=False, mlp_bias=False, norm_bias=False)
        sizes = read_transformer(config)
        layers = sizes["num_hidden_layers"]
        # Source for this default and those below: transformers' ModernBertConfig.
        every = config.size("global_attn_every_n_layers", default=3)
        return cls(
            **sizes,
            norm_eps=config.number("norm_eps", default=1e-5),
            activation=read_activation(config, "hidden_activation"),
            kinds=LayerKinds(
                local=read_local(config, layers, lambda index: index % every != 0),
                within=config.size("local_attention", default=128) // 2,
                global_theta=read_theta(config, "global_rope_theta", 160_000.0, kind=GLOBAL),
                local_theta=read_theta(config, "local_rope_theta", 10_000.0, kind=LOCAL),
            ),
        )
