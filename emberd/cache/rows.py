"""What is kept of a text: its vector, and how many tokens it had, with a checksum over both.

SQLite notices a damaged structure, but not a damaged value.
"""

import struct
import zlib
from dataclasses import dataclass

HEAD = struct.Struct("<III")  # checksum, tokens that were computed, tokens of the whole text


@dataclass(frozen=True, slots=True)
class Kept:
    """A text's vector as the model gave it, in float32, before it is cut and normalized.

    `tokens` is how many the model got, `uncut` how many the whole text has.
    """

    tokens: int
    uncut: int
    vector: bytes


def pack(key: bytes, kept: Kept) -> bytes:
    """Return the bytes of a row, which belong to this key alone."""
    counts = HEAD.pack(0, kept.tokens, min(kept.uncut, 2**32 - 1))
    checksum = zlib.crc32(kept.vector, zlib.crc32(counts, zlib.crc32(key)))
    return HEAD.pack(checksum, kept.tokens, min(kept.uncut, 2**32 - 1)) + kept.vector


def unpack(key: bytes, row: object, vector_bytes: int) -> Kept | None:
    """Return what is kept under a key; None if the row is damaged, or of another size."""
    if not isinstance(row, bytes) or len(row) != HEAD.size + vector_bytes:
        return None
    _, tokens, uncut = HEAD.unpack_from(row)
    kept = Kept(tokens, uncut, row[HEAD.size :])
    return kept if pack(key, kept) == row else None
