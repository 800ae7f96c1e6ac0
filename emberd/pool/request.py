"""What a caller may ask of the pool: the vectors of texts, or their tokens or chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from emberd.dtypes import Dtype
from emberd.registry.spec import KINDS, AskedRole, Kind
from emberd.spaces.chunks import USUAL, Chunking
from emberd.worker.wire import EmbedOptions, Span

Description = Literal["tokens", "chunks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest(EmbedOptions):
    """What a caller may ask; nothing in it changes what other callers see.

    The worker gets the options as they are, and what else it needs from a `Job`.
    """

    texts: Sequence[str]
    model: str | None = None
    input_type: AskedRole | None = None  # None: as the model's name says
    dimensions: int | None = None
    fingerprint: str | None = None
    takes: Sequence[Kind] = ("embed",)  # kinds of models that may embed the texts
    description: Description | None = None  # what is asked for, if not vectors
    special_tokens: bool = True  # among the `tokens`
    chunking: Chunking = USUAL  # how to cut `chunks`
    spans: Sequence[Sequence[Span]] | None = None  # for late chunking; () until chunks are known

    @property
    def kinds(self) -> Sequence[Kind]:
        """The kinds of models that can serve it, the usual one first."""
        if self.description == "tokens":
            return KINDS  # all have a tokenizer
        return self.takes if self.query is None else ("rerank",)

    @property
    def dtypes(self) -> Sequence[Dtype]:
        """What its vectors are wanted as, each once; each is of a space of its own."""
        return list(dict.fromkeys([self.dtype, *(dtype for _, dtype in self.also)]))
