"""What kind of encoder a checkpoint holds, and its sizes, from config.json.

Backends share this, and each has its own arithmetic for it.
"""

from dataclasses import dataclass
from typing import Self

from emberd.backends.base import TokenIds
from emberd.backends.checkpoint import Config
from emberd.errors import ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert:
    """The sizes of a BERT encoder, named as in config.json. Source: arXiv:1810.04805, section 3."""

    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float

    @classmethod
    def read(cls, config: Config) -> Self:
        """Read the sizes.

        Raises:
            ModelLoadError: one is missing or impossible, or it is a variant of BERT with other
                arithmetic (another activation, relative positions, a decoder).
        """
        for key, ours in {
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "is_decoder": False,
        }.items():
            if (found := config.get(key, ours)) != ours:
                raise ModelLoadError(f"{config.path}: {key} is {found!r}; only {ours!r} is known.")
        bert = cls(
            vocab_size=config.size("vocab_size"),
            max_position_embeddings=config.size("max_position_embeddings"),
            type_vocab_size=config.size("type_vocab_size"),
            hidden_size=config.size("hidden_size"),
            num_hidden_layers=config.size("num_hidden_layers"),
            num_attention_heads=config.size("num_attention_heads"),
            intermediate_size=config.size("intermediate_size"),
            layer_norm_eps=config.number("layer_norm_eps", default=1e-12),
        )
        if bert.hidden_size % bert.num_attention_heads:
            raise ModelLoadError(
                f"{config.path}: hidden_size {bert.hidden_size} is no multiple of"
                f" num_attention_heads {bert.num_attention_heads}."
            )
        return bert

    @property
    def head_size(self) -> int:
        """Length of one head's part of a token vector."""
        return self.hidden_size // self.num_attention_heads

    def check(self, token_ids: TokenIds) -> None:
        """Raise `ModelLoadError` for tokens that the embedding tables lack.

        An engine would read past the table and return a plausible vector.
        """
        if token_ids.shape[1] > self.max_position_embeddings:
            raise ModelLoadError(
                f"A text has {token_ids.shape[1]} tokens, but the model has"
                f" {self.max_position_embeddings} positions.",
                hint="Lower `max_tokens` of the model.",
            )
        if token_ids.min() < 0 or token_ids.max() >= self.vocab_size:
            raise ModelLoadError(
                f"The tokenizer gave an id outside the model's {self.vocab_size} tokens.",
                hint="tokenizer.json and the weights belong to different models.",
            )


def read_architecture(config: Config, *, backend: str) -> Bert:
    """Return the architecture that `model_type` names.

    Raises:
        ModelLoadError: `backend` does not run it, or its sizes make no sense.
    """
    model_type = config.get("model_type")
    if model_type != "bert":
        raise ModelLoadError(
            f"{config.path}: model_type is {model_type!r}; backend {backend} runs bert."
        )
    return Bert.read(config)
