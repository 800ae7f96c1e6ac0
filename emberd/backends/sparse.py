"""What makes a sparse vector, one number for each entry of the vocabulary, of token vectors.

Either a masked language model's head, which scores every entry for every token (SPLADE,
arXiv:2109.10086), or a linear layer that weighs each token as itself (BGE-M3, arXiv:2402.03216).
"""

from dataclasses import dataclass

from emberd.backends.modules import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedLM:
    """Dense, activation and layer norm, then a product with the table of word vectors.

    An entry's number is the logarithm of 1 + the largest score that any of a text's tokens has for
    it, or 0 if none is positive. Special tokens are tokens here, as in sentence-transformers.

    Attributes:
        dense: the prefix of that layer's weights; `dense_bias`: whether it has one.
        norm: of the layer norm's; `norm_bias`: the same.
        decoder: of the table, which is that of the embeddings unless config.json unties them.
        bias: names that the bias of the scores may have; without any, there is none.
        logs: how often the logarithm is taken; see `models.splade`.
    """

    dense: str
    norm: str
    decoder: str
    bias: tuple[str, ...]
    activation: Activation
    norm_eps: float
    hidden_size: int
    vocab_size: int
    dense_bias: bool = True
    norm_bias: bool = True
    logs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWeights:
    """A linear layer to one number; the vector has the largest that a token got, where it is > 0.

    Source: FlagEmbedding's `BGEM3FlagModel`. `unused` are the ids of special tokens, which it
    leaves out.
    """

    hidden_size: int
    vocab_size: int
    unused: tuple[int, ...]
    name: str = "sparse_linear"


SparseHead = MaskedLM | TokenWeights
