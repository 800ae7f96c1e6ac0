"""What the sizes of every architecture have in common, and how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from emberd.backends.base import Pooling, TokenIds
from emberd.backends.config import ModelConfig
from emberd.backends.modules import Activation, Head
from emberd.backends.sparse import MaskedLM, TokenWeights
from emberd.errors import ModelLoadError

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "relu": "ReLU",
    "silu": "SiLU",
    "swish": "SiLU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """Which token ids an encoder takes, and how many at most.

    `padding_id`: positions count only the other tokens and start after this id; a padding token's
    position is the id itself (fairseq's convention). None: positions count all tokens from 0.
    """

    vocab_size: int
    max_tokens: int
    padding_id: int | None = None

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
class Architecture(TokenLimits):
    """The sizes of any encoder, named as in config.json.

    This class itself is for architectures that emberd does not implement natively.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("model.",)
    """What may stand before the names of the encoder's tensors, in models with a task head."""

    other_names: ClassVar[Mapping[str, str]] = {}
    """Parts of tensors' names in some checkpoints, and what `Checkpoint` turns them into."""

    takes_f16: ClassVar[bool] = True
    """Whether all activations fit into float16, whose largest number is 65,504."""

    tokenizer_class: ClassVar[str] = ""
    """The tokenizer that transformers takes where tokenizer_config.json does not name one."""

    only_known: ClassVar[bool] = False
    """Whether a text's tokens are only those that its tokenizer knows, without special ones."""

    usual_positions: ClassVar[int | None] = None
    """How many positions there are where config.json does not say."""

    model_type: str
    hidden_size: int

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

    @classmethod
    def padding(cls, config: ModelConfig) -> object:
        """Return `padding_id`, as config.json has it."""
        del config
        return None

    @classmethod
    def positions(cls, config: ModelConfig) -> int | None:
        """Return the most tokens that the positions allow; None if config.json does not say.

        Ids up to the padding's are no positions, if positions start after it. XLNet says -1.
        """
        stated = config.get("n_positions") or config.get("max_position_embeddings")
        stated, padding = stated or cls.usual_positions, cls.padding(config)
        if not isinstance(stated, int) or not isinstance(padding, int | None):
            return None
        left = stated if padding is None else stated - padding - 1
        return left if left > 0 else None

    @classmethod
    def classified(cls, config: ModelConfig) -> Pooling:
        """Return which pooling a classifier reads, as config.json has it."""
        del config
        return "cls"

    def classifier(self, config: ModelConfig, pooling: Pooling) -> tuple[Head, ...]:
        """Return the layers that make a logit of a pooled pair of texts, as re-rankers do.

        Raises:
            ModelLoadError: emberd does not know them, or the config wants others.
        """
        raise ModelLoadError(
            f"{config.path}: emberd runs no re-rankers of model_type {self.model_type!r}.",
            hint="Choose a re-ranker of another architecture; see docs/configuration.md.",
        )

    def masked_lm(self, config: ModelConfig) -> MaskedLM:
        """Return the head that scores every entry of the vocabulary, as sparse models have.

        Raises:
            ModelLoadError: emberd does not know it, or the config wants another.
        """
        raise ModelLoadError(
            f"{config.path}: emberd runs no sparse models of model_type {self.model_type!r}.",
            hint="Choose a sparse model of another architecture; see docs/configuration.md.",
        )

    def token_weights(self, config: ModelConfig) -> TokenWeights:
        """Return the layer that gives each token a weight, as BGE-M3 has.

        Raises:
            ModelLoadError: emberd does not know which tokens are special here.
        """
        raise ModelLoadError(
            f"{config.path}: emberd reads weights of tokens for XLM-RoBERTa, as BGE-M3 has them,"
            f" not for model_type {self.model_type!r}."
        )

    @property
    def module(self) -> str:
        """Name of the module with its arithmetic, which is the same in each backend."""
        return type(self).__module__.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer(Architecture):
    """Layers of attention, whose heads share the hidden size, and a feed-forward."""

    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    activation: Activation

    @property
    def head_size(self) -> int:
        """Length of one attention head's part of a token vector."""
        return self.hidden_size // self.num_attention_heads


def read_transformer(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of `Transformer`, except `activation`, whose key has several names.

    Raises:
        ModelLoadError: one is missing or impossible.
    """
    hidden_size = config.size("hidden_size")
    return {
        "model_type": config.get("model_type"),
        "vocab_size": config.size("vocab_size"),
        "hidden_size": hidden_size,
        "max_tokens": config.size("max_position_embeddings"),
        "num_hidden_layers": config.size("num_hidden_layers"),
        "num_attention_heads": read_heads(config, hidden_size),
        "intermediate_size": config.size("intermediate_size"),
    }


def read_heads(config: ModelConfig, hidden_size: int, key: str = "num_attention_heads") -> int:
    """Return the number of attention heads, into which the hidden size must divide.

    Raises:
        ModelLoadError: it does not.
    """
    heads = config.size(key)
    if hidden_size % heads:
        raise ModelLoadError(
            f"{config.path}: hidden_size {hidden_size} is not a multiple of {key} {heads}."
        )
    return heads


def expect_one_logit(config: ModelConfig, pooling: Pooling, *, states: Pooling = "cls") -> None:
    """Raise `ModelLoadError` unless a classifier gives one logit, of what the entry pools.

    `states`: what the checkpoint pools.
    """
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels")
    if count is None:
        raise ModelLoadError(
            f"{config.path} does not say how many labels the classifier tells apart, which means 2"
            " to transformers; a re-ranker has one.",
            hint='If its classifier has one output, write `"id2label": {"0": "LABEL_0"}` there.',
        )
    if count != 1:
        raise ModelLoadError(
            f"{config.path}: the model tells {count} labels apart; a re-ranker has one.",
            hint="Choose a re-ranker (a cross-encoder with one label): emberd does not run other"
            " classifiers.",
        )
    if pooling != states:
        raise ModelLoadError(
            f"{config.path}: the classifier reads pooling {states}, but the registry says"
            f" {pooling}.",
            hint="Set the entry's `pooling` to what the file says.",
        )


def table_of(config: ModelConfig, embeddings: str, decoder: str) -> str:
    """Return the name of the table that a masked language model multiplies by.

    transformers takes that of the embeddings, whatever the file has, unless config.json unties it.
    """
    return embeddings if config.get("tie_word_embeddings", True) is not False else decoder


def read_activation(
    config: ModelConfig, key: str = "hidden_act", default: str = "gelu"
) -> Activation:
    """Return the function between two linear layers, by transformers' names for it.

    Raises:
        ModelLoadError: it is not supported.
    """
    name = config.get(key, default)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelLoadError(
            f"{config.path}: {key} is {name!r}; supported are {', '.join(_ACTIVATIONS)}.",
            hint="Choose another model, or write a backend that supports it"
            " (docs/writing-a-backend.md).",
        )
    return _ACTIVATIONS[name]
