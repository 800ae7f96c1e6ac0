"""The sizes of MPNet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.post_norm import PostNorm, read_sizes
from emberd.backends.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MPNet(PostNorm):
    """RoBERTa without segments, with relative positions in its attention. Source: arXiv:2004.09297.

    Distances fall into the 32 buckets of `relative_positions`; one table, shared by all layers, has
    a bias for each bucket and head.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("mpnet.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {
        "attention.attn.q.": "attention.self.query.",
        "attention.attn.k.": "attention.self.key.",
        "attention.attn.v.": "attention.self.value.",
        "attention.attn.o.": "attention.output.dense.",
        "attention.LayerNorm.": "attention.output.LayerNorm.",
    }
    tokenizer_class: ClassVar[str] = "MPNetTokenizer"

    @classmethod
    def padding(cls, config: ModelConfig) -> object:
        """Return the id after which positions start, whatever config.json says."""
        del config
        return 1

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: as for `Bert`.
        """
        config.expect(relative_attention_num_buckets=32)
        return cls(**read_sizes(config, cls.padding(config)))
