"""What is wrong with a store's rows: bad texts or vectors, and one without the other."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emberd.dtypes import NUMPY, Dtype
from emberd.migrate import sidecar
from emberd.migrate.likeness import comparable
from emberd.stores.base import Key, Shape, Store, lacking_of
from emberd.vectors import Matrix, finite_rows

KEYS = 20  # how many rows that lack something are listed
BATCH = 4096  # vectors looked at together
OFF = 0.01  # a length that is as far from 1 is not due to rounding, not even in bfloat16


@dataclass(slots=True, kw_only=True)
class Health:
    """What is wrong with a store's rows, counted over all of them."""

    rows: int = 0
    without_vector: int = 0
    without_text: int = 0
    empty_text: int = 0
    bad_vector: int = 0  # non-finite, zero, or of another size
    not_unit: int = 0  # other vectors whose length is not 1, of floats
    duplicates: int = 0  # rows with the same text as an earlier row
    textless: Sequence[Key] = ()  # the first vectors whose text is missing, NULL or empty
    vectorless: Sequence[Key] = ()  # the first texts that have no vector


def health_of(store: Store, shape: Shape) -> Health:
    """Read every row, and count what is wrong; of each text, only 8 bytes stay in memory."""
    lacking = lacking_of(store)
    health = Health(
        without_vector=shape.without_vector,
        without_text=shape.without_text,
        textless=lacking.text[:KEYS],
        vectorless=lacking.vector[:KEYS],
    )
    seen = array("Q")  # 64 bits of each: among 10 million texts, two share one with p = 3e-6
    batch: list[bytes] = []
    for row in store.rows():
        health.rows += 1
        health.empty_text += not row.text
        if row.text:
            seen.frombytes(sidecar.hash_of(row.text)[: seen.itemsize])
        if len(row.vector) != shape.vector_bytes:
            health.bad_vector += 1
        else:
            batch.append(row.vector)
        if len(batch) == BATCH:
            _count(health, batch, shape.dtype)
            batch.clear()
    _count(health, batch, shape.dtype)
    health.duplicates = len(seen) - len(np.unique(np.frombuffer(seen, np.uint64)))
    return health


def _count(health: Health, vectors: Sequence[bytes], dtype: Dtype) -> None:
    """Count the bad ones of a batch, and those whose length is not 1."""
    rows, usable = _usable(vectors, dtype)
    health.bad_vector += int((~usable).sum())
    if dtype == "float":
        lengths = np.linalg.norm(rows[usable].astype(np.float64), axis=1)
        health.not_unit += int((abs(lengths - 1) > OFF).sum())


def _usable(vectors: Sequence[bytes], dtype: Dtype) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Return vectors as `(N, D)`, and which of them can be compared, `(N,)`."""
    if not vectors:
        return np.zeros((0, 1), np.float32), np.zeros(0, np.bool_)
    rows = np.frombuffer(b"".join(vectors), NUMPY[dtype]).reshape(len(vectors), -1)
    found = comparable(rows, dtype)
    return found, finite_rows(found)


def is_usable(vector: bytes, shape: Shape) -> bool:
    """Whether it can be compared; `Health.bad_vector` counts what cannot."""
    return len(vector) == shape.vector_bytes and bool(_usable([vector], shape.dtype)[1].all())
