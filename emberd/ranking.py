"""The order of re-ranked texts, and their scores, from the logits that a model gave them."""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ranked:
    """A text's place in the request, and how relevant it is to the query, from 0 to 1.

    `logit` is what the model gave: scores of 1.0 can differ in it.
    """

    index: int
    logit: float

    @property
    def score(self) -> float:
        """The sigmoid of the logit, 1 / (1 + e^-x), which may be of any size."""
        if self.logit >= 0:
            return 1 / (1 + math.exp(-self.logit))
        return math.exp(self.logit) / (1 + math.exp(self.logit))


def logits(fragments: Iterable[bytes]) -> Sequence[float]:
    """Return the number in each fragment of an answer, little-endian float32."""
    content = b"".join(fragments)
    return struct.unpack(f"<{len(content) // 4}f", content)


def rank(fragments: Iterable[bytes]) -> list[Ranked]:
    """Return the texts of an answer's fragments in order; see `in_order`."""
    return in_order(Ranked(place, logit) for place, logit in enumerate(logits(fragments)))


def in_order(texts: Iterable[Ranked]) -> list[Ranked]:
    """Sort texts by logit, the highest first and equal ones by their places.

    Not by score: that is 1.0 for many.
    """
    return sorted(texts, key=lambda each: (-each.logit, each.index))
