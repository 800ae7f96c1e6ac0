"""The order of re-ranked texts, and their scores, from the logits that a model gave them."""

import math
import struct
from collections.abc import Iterable, Sequence


def logits(fragments: Iterable[bytes]) -> Sequence[float]:
    """Return the number in each fragment of an answer, little-endian float32."""
    content = b"".join(fragments)
    return struct.unpack(f"<{len(content) // 4}f", content)


def order(scores: Sequence[float]) -> list[int]:
    """Return the places of scores, the highest first and equal ones in order.

    Sort by logits, not by what `sigmoid` makes of them: that is 1.0 for many.
    """
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + e^-x), of a number of any size."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
