"""The sizes of JinaBERT (jina-embeddings-v2), and the slopes of its attention.

Sources: arXiv:2310.19923, section 4.1, and 2108.12409 (ALiBi); names of tensors and keys of
config.json as in the code that the checkpoints name, jinaai/jina-bert-implementation and, for the
model for code, jinaai/jina-bert-v2-qk-post-norm on the Hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from emberd.backends.architectures.base import Transformer, read_transformer
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation
from emberd.errors import ModelLoadError

_GATES: Final[Mapping[str, Activation]] = {"geglu": "GELU", "reglu": "ReLU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JinaBert(Transformer):
    """BERT with a bias for distances instead of positions, and a gated feed-forward layer.

    The model for code has more norms, which show in the names of its tensors (`NORMED`), and its
    gate comes second (`GATE_FIRST`, `GATE_SECOND`).
    """

    prefixes: ClassVar[tuple[str, ...]] = ("bert.", "model.")
    other_names: ClassVar[Mapping[str, str]] = {
        "mlp.wo.": "mlp.down_layer.",
        "mlp.layernorm.": "layer_norm_2.",
    }
    tokenizer_class: ClassVar[str] = "BertTokenizer"

    NORMED: ClassVar[str] = "attention.self.layer_norm_q"
    GATE_FIRST: ClassVar[str] = "mlp.gated_layers"
    GATE_SECOND: ClassVar[str] = "mlp.up_gated_layer"

    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        There is no table of positions; `max_position_embeddings` is the longest text that the
        authors allow.

        Raises:
            ModelLoadError: one is missing or impossible, or this is an unsupported variant (a
                feed-forward layer without a gate, a decoder).
        """
        config.expect(position_embedding_type="alibi", is_decoder=False)
        kind = config.get("feed_forward_type", "original")
        if kind not in _GATES:
            raise ModelLoadError(
                f"{config.path}: feed_forward_type is {kind!r}; supported are {', '.join(_GATES)}."
            )
        return cls(
            **read_transformer(config),
            activation=_GATES[kind],
            type_vocab_size=config.size("type_vocab_size"),
            layer_norm_eps=config.number("layer_norm_eps", default=1e-12),
        )

    @property
    def slopes(self) -> list[float]:
        """What a score loses for each token of distance, head by head.

        Powers of 2: the exponents are spread evenly up to -8. If the number of heads is none, as
        for the next lower one, and then every other one of the next higher (the authors' code).
        """
        heads = self.num_attention_heads
        lower = 1 << (heads.bit_length() - 1)
        more = _spread(2 * lower)[0::2]
        return _spread(lower) + more[: heads - lower]


def _spread(heads: int) -> list[float]:
    """Return the slopes for a number of heads that is a power of 2."""
    return [2.0 ** (-8 * (head + 1) / heads) for head in range(heads)]
