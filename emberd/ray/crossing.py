"""What crosses between ingress and replica: answers as one buffer, errors as code and words.

Nothing that a client may see is a pickled exception. Both ends run the same version of emberd.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from emberd.errors import EmberdError, from_code
from emberd.pool.job import Answer


@dataclass(frozen=True, slots=True)
class Sent:
    """An answer without its fragments, whose bytes follow one another in `payload`."""

    answer: Answer
    sizes: Sequence[int]
    payload: bytes

    @classmethod
    def of(cls, answer: Answer) -> "Sent":
        """Return an answer as it is sent."""
        sizes = list(map(len, answer.fragments))
        return cls(replace(answer, fragments=()), sizes, b"".join(answer.fragments))

    def received(self) -> Answer:
        """Return the answer."""
        ends = list(accumulate(self.sizes))
        fragments = map(self.payload.__getitem__, map(slice, [0, *ends[:-1]], ends))
        return replace(self.answer, fragments=list(fragments))


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of the tree. `elsewhere`: it is about this replica, so another may answer."""

    code: str
    message: str
    hint: str | None = None
    field: str | None = None
    elsewhere: bool = False

    @classmethod
    def of(cls, error: EmberdError, *, elsewhere: bool = False) -> "Refused":
        """Return an error as it is sent."""
        return cls(error.code, error.message, error.hint, error.field, elsewhere)

    def received(self) -> EmberdError:
        """Return the error."""
        return from_code(self.code, self.message, self.hint, self.field)
