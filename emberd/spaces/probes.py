"""Eight probe texts, whose vectors show without any user's text whether two spaces are the same.

They differ in language, length and kind, so that different files, another precision or pooling, or
other handling of case moves at least one of them. A worker embeds them; here their vectors are
encoded for `lock.json` and for the stamps of stores, and compared. This is plain Python because the
server has no numpy.
"""

import base64
import math
import struct
from collections.abc import Iterable, Sequence

PROBES = (
    "The ferry leaves at seven and comes back before dark.",
    "How do I undo the last commit without losing my changes?",
    "def area(radius): return 3.14159 * radius ** 2",
    "Preheat the oven, then fold the egg whites into the batter.",
    "Die Rechnung ist bis Ende März zu bezahlen.",
    "明天的会议改到下午三点。",
    "ERROR 2031: connection refused while writing to shard 7",
    "ok",
)

Rows = Iterable[Iterable[float]]
"""The vectors of the probe texts, `(8, D)`; a float32 matrix is one."""


def encode(rows: Rows) -> str:
    """Return vectors as base64 of little-endian float32, row after row."""
    values = [float(value) for row in rows for value in row]
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def decode(encoded: str) -> list[Sequence[float]]:
    """Return the eight rows that `encode` encoded; none if they are damaged."""
    try:
        content = base64.b64decode(encoded)
        values = struct.unpack(f"<{len(content) // 4}f", content)
    except (ValueError, struct.error):
        return []
    size, rest = divmod(len(values), len(PROBES))
    if not size or rest:
        return []
    return [values[at : at + size] for at in range(0, len(values), size)]


def lowest_cosine(one: str, other: str, dimensions: int | None = None) -> float:
    """Return the lowest cosine of any probe text's two vectors; 0 if they cannot be compared.

    A text whose vector is zero in both, since a static model knows no token of it, is left out.

    Args:
        one: the encoded vectors in one space.
        other: those in the other.
        dimensions: how many leading dimensions to compare, for models with several sizes.
    """
    pairs = [
        (a[:dimensions], b[:dimensions])
        for a, b in zip(decode(one), decode(other), strict=False)
        if any(a) or any(b)
    ]
    scales = [math.hypot(*a) * math.hypot(*b) for a, b in pairs]
    usable = all(len(a) == len(b) for a, b in pairs) and all(
        math.isfinite(scale) and scale > 0 for scale in scales
    )
    if not pairs or not usable:
        return 0.0
    products = [sum(p * q for p, q in zip(a, b, strict=True)) for a, b in pairs]
    return round(min(p / scale for p, scale in zip(products, scales, strict=True)), 6)
