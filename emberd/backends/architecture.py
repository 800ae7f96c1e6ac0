"""Which architecture a checkpoint has, and its sizes, from config.json.

All backends share this; each implements the architectures with its own library.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, overload

from emberd.backends.base import TokenIds
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of any encoder, named as in config.json; `max_tokens` is its longest input.

    This class itself is for architectures that emberd does not implement natively.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    max_tokens: int

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible.
        """
        return cls(
            model_type=str(config.get("model_type")),
            vocab_size=config.size("vocab_size"),
            hidden_size=config.size("hidden_size"),
            max_tokens=config.size("max_position_embeddings"),
        )

    def check(self, token_ids: TokenIds) -> None:
        """Raise `ModelLoadError` for tokens outside the embedding tables.

        An engine would read past the end of the table and return a plausible vector.
        """
        if token_ids.shape[1] > self.max_tokens:
            raise ModelLoadError(
                f"A text has {token_ids.shape[1]} tokens, but the model has only"
                f" {self.max_tokens} positions.",
                hint="Lower `max_tokens` in the model's entry.",
            )
        if token_ids.min() < 0 or token_ids.max() >= self.vocab_size:
            raise ModelLoadError(
                f"The tokenizer gave an id outside the model's {self.vocab_size} tokens.",
                hint="tokenizer.json and the weights belong to different models. Get both from the"
                " same source.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PostNorm(Architecture):
    """Token and position embeddings, then post-norm layers. Source: arXiv:1706.03762.

    `padding_id`: positions count only the other tokens and start after this id; a padding token's
    position is the id itself (fairseq's convention). None: positions count all tokens from 0.
    """

    max_position_embeddings: int
    padding_id: int | None
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float
    activation: Activation

    @property
    def head_size(self) -> int:
        """Length of one attention head's part of a token vector."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert(PostNorm):
    """BERT (arXiv:1810.04805, section 3), RoBERTa (1907.11692) and XLM-RoBERTa (1911.02116)."""

    type_vocab_size: int

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
        return cls(
            **_post_norm_sizes(config, padding_id), type_vocab_size=config.size("type_vocab_size")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MPNet(PostNorm):
    """RoBERTa without segments, with relative positions in its attention. Source: arXiv:2004.09297.

    Distances fall into the 32 buckets of `relative_positions`; one table, shared by all layers, has
    a bias for each bucket and head.
    """

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: as for `Bert`.
        """
        config.expect(relative_attention_num_buckets=32)
        return cls(**_post_norm_sizes(config, padding_id=1))  # whatever pad_token_id says


_NATIVE: Final[dict[str, type[Architecture]]] = {
    "bert": Bert,
    "mpnet": MPNet,
    "roberta": Bert,
    "xlm-roberta": Bert,
}
_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "relu": "ReLU",
}

NATIVE: Final = frozenset(_NATIVE)
"""The `model_type`s that our own backends implement."""


@overload
def read_architecture(config: ModelConfig, *, backend: str) -> Bert: ...
@overload
def read_architecture(
    config: ModelConfig, *, backend: str, runs: Collection[str]
) -> Architecture: ...
def read_architecture(
    config: ModelConfig, *, backend: str, runs: Collection[str] = ("bert",)
) -> Architecture:
    """Return the architecture named by `model_type`, which must be one that `backend` `runs`.

    Raises:
        ModelLoadError: it is not one of them, or its sizes are impossible.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in runs:
        raise ModelLoadError(
            f"{config.path}: model_type is {model_type!r}, but backend {backend} runs only"
            f" {', '.join(sorted(runs))}."
        )
    return _NATIVE.get(model_type, Architecture).read(config)


def _post_norm_sizes(config: ModelConfig, padding_id: object) -> dict[str, Any]:
    """Return the fields of `PostNorm`."""
    positions = config.size("max_position_embeddings")
    first = 0
    if padding_id is not None:
        if not isinstance(padding_id, int) or not 0 <= padding_id < positions - 1:
            raise ModelLoadError(f"{config.path}: pad_token_id is {padding_id!r}.")
        first = padding_id + 1
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if hidden_size % heads:
        raise ModelLoadError(
            f"{config.path}: hidden_size {hidden_size} is not a multiple of"
            f" num_attention_heads {heads}."
        )
    return {
        "model_type": config.get("model_type"),
        "vocab_size": config.size("vocab_size"),
        "hidden_size": hidden_size,
        "max_tokens": positions - first,
        "max_position_embeddings": positions,
        "padding_id": padding_id,
        "num_hidden_layers": config.size("num_hidden_layers"),
        "num_attention_heads": heads,
        "intermediate_size": config.size("intermediate_size"),
        "layer_norm_eps": config.number("layer_norm_eps", default=1e-12),
        "activation": _activation(config),
    }


def _activation(config: ModelConfig) -> Activation:
    """Return the function between the two linear layers, by transformers' names for it."""
    name = config.get("hidden_act", "gelu")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelLoadError(
            f"{config.path}: hidden_act is {name!r}; supported are {', '.join(_ACTIVATIONS)}.",
            hint="Choose another model, or write a backend that supports it"
            " (docs/writing-a-backend.md).",
        )
    return _ACTIVATIONS[name]
