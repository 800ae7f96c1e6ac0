"""The sizes of DeBERTa, versions 2 and 3, and the rows of its table of relative positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from emberd.backends.architectures.base import expect_one_logit, read_activation
from emberd.backends.architectures.post_norm import PostNorm, read_sizes
from emberd.backends.base import Pooling
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Head
from emberd.errors import ModelLoadError

_STATED: Final[Mapping[str, object]] = {
    "relative_attention": True,
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["c2p", "p2c"],
    "share_att_key": True,
}
"""What config.json must say, as transformers' defaults are others, which are not supported."""

_PARTS: Final = 3  # of a score: of two tokens, of a query and a distance, of a distance and a key


@dataclass(frozen=True, slots=True, kw_only=True)
class DebertaV2(PostNorm):
    """BERT with disentangled attention: how far apart two tokens are is told by vectors alone.

    Sources: arXiv:2006.03654, section 3.1; for the buckets of versions 2 and 3 (2111.09543),
    transformers' `DebertaV2Model`. Vectors of distances go through the projections that make
    queries and keys of tokens.

    `span`: how many buckets of distances there are in each direction; `farthest`: the distance from
    which on there is only one.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("deberta.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {"_proj.": "."}
    takes_f16: ClassVar[bool] = False  # nobody has said that they fit
    tokenizer_class: ClassVar[str] = "DebertaV2Tokenizer"

    span: int
    farthest: int

    @property
    def attention_scale(self) -> float:
        """What scores are multiplied by."""
        return float((_PARTS * self.head_size) ** -0.5)

    def rows(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return the row of the table, which has `2 * span`, for each `query - key`.

        Each near distance has its own, and the farther ones share more and more, by a logarithm.
        Computed in float32 like transformers, since a distance on an edge goes by its rounding.
        """
        middle = self.span // 2
        far = np.maximum(np.abs(distances), middle).astype(np.float32)
        octaves = np.log(far / np.float32(middle))
        whole = np.log(np.float32((self.farthest - 1) / middle))
        grown = np.ceil(octaves / whole * np.float32(middle - 1)) + middle
        bucket = np.where(np.abs(distances) <= middle, distances, grown * np.sign(distances))
        return np.clip(bucket.astype(np.int64) + self.span, 0, 2 * self.span - 1).astype(np.int32)

    def classifier(self, config: ModelConfig, pooling: Pooling) -> tuple[Head, ...]:
        """Return the pooler and the classifier.

        Source: transformers' `DebertaV2ForSequenceClassification`, `ContextPooler`.
        """
        expect_one_logit(config, pooling)
        size = self.hidden_size
        config.expect(pooler_hidden_size=size)
        return (
            Head(
                name="pooler.dense",
                outputs=size,
                inputs=size,
                activation=read_activation(config, "pooler_hidden_act"),
            ),
            Head(name="classifier", outputs=1, inputs=size),
        )

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant
                (absolute positions, a convolution, only one kind of relative attention).
        """
        sizes = read_sizes(config, None)
        size = sizes["hidden_size"]
        config.expect(
            type_vocab_size=0,
            embedding_size=size,
            attention_head_size=size // sizes["num_attention_heads"],
            conv_kernel_size=0,
        )
        for key, only in _STATED.items():
            found = config.get(key)
            kinds = found.replace(" ", "").split("|") if isinstance(found, str) else found
            if found != only and (not isinstance(kinds, list) or sorted(kinds) != only):
                raise ModelLoadError(
                    f"{config.path}: {key} is {found!r}; only {only!r} is supported."
                )
        farthest = config.get("max_relative_positions", -1)
        farthest = sizes["max_position_embeddings"] if farthest == -1 else farthest
        span = config.size("position_buckets")
        if not isinstance(farthest, int) or not 2 <= span // 2 < farthest - 1:
            raise ModelLoadError(
                f"{config.path}: position_buckets {span} does not fit max_relative_positions"
                f" {farthest!r}."
            )
        return cls(
            **{**sizes, "layer_norm_eps": config.number("layer_norm_eps", default=1e-7)},
            span=span,
            farthest=farthest,
        )
