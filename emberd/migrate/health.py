"""What is wrong with a store's rows: bad texts or vectors, and one without the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emberd.dtypes import NUMPY, Dtype
from emberd.migrate import sidecar
from emberd.migrate.base import Key, Shape, Store, lacking_of
from emberd.migrate.likeness import comparable
from emberd.vectors import finite_rows

KEYS = 20  # how many rows that lack something are listed


@dataclass(slots=True, kw_only=True)
class Health:
    """What is wrong with a store's rows, counted over all of them."""

    rows: int = 0
    without_vector: int = 0
    without_text: int = 0
    empty_text: int = 0
    bad_vector: int = 0  # non-finite, zero, or of another size
    duplicates: int = 0  # rows with the same text as an earlier row
    textless: Sequence[Key] = ()  # the first vectors whose text is missing, NULL or empty
    vectorless: Sequence[Key] = ()  # the first texts that have no vector


def health_of(store: Store, shape: Shape) -> Health:
    """Read every row, and count what is wrong."""
    lacking = lacking_of(store)
    health = Health(
        without_vector=shape.without_vector,
        without_text=shape.without_text,
        textless=lacking.text[:KEYS],
        vectorless=lacking.vector[:KEYS],
    )
    seen: set[bytes] = set()
    batch: list[bytes] = []
    for row in store.rows():
        health.rows += 1
        digest = sidecar.hash_of(row.text or "")
        health.empty_text += not row.text
        health.duplicates += digest in seen and bool(row.text)
        seen.add(digest)
        if len(row.vector) != shape.vector_bytes:
            health.bad_vector += 1
        else:
            batch.append(row.vector)
        if len(batch) == 4096:
            health.bad_vector += _count_bad(batch, shape.dtype)
            batch.clear()
    health.bad_vector += _count_bad(batch, shape.dtype)
    return health


def _count_bad(vectors: Sequence[bytes], dtype: Dtype) -> int:
    if not vectors:
        return 0
    rows = np.frombuffer(b"".join(vectors), NUMPY[dtype]).reshape(len(vectors), -1)
    return int((~finite_rows(comparable(rows, dtype))).sum())


def is_usable(vector: bytes, shape: Shape) -> bool:
    """Whether it can be compared; `Health.bad_vector` counts what cannot."""
    return len(vector) == shape.vector_bytes and not _count_bad([vector], shape.dtype)
