"""What smaller vectors cost: how many nearest neighbours a sample of a store's rows keeps."""

from dataclasses import dataclass

import numpy as np

from emberd.migrate.embedding import Embedder, Target, embed
from emberd.migrate.likeness import comparable
from emberd.migrate.nearest import kept, nearest
from emberd.migrate.sampling import sampled
from emberd.stores.base import Shape, Store
from emberd.vectors import finite_rows, quantize, ranges

ROWS = 1000  # embedded in both dtypes, all of them compared with each other
NEAREST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`kept` of the `nearest` nearest neighbours of each of `rows` rows are the same, 0 to 1."""

    rows: int
    nearest: int
    kept: float


def measure_loss(store: Store, shape: Shape, target: Target, embedder: Embedder) -> Loss | None:
    """Embed a sample and compare; None if the store has too few rows, or nothing is lost.

    Raises:
        EmberdError: the model cannot embed.
    """
    full = target.rounded_from
    rows = [row.text for row in sampled(store.rows(), shape.rows, ROWS) if row.text]
    if full is None or len(rows) <= NEAREST:
        return None
    floats = embed(embedder, rows, full).astype(np.float32)
    floats = floats[finite_rows(floats)]
    limits = ranges(target.step, target.dimensions) if target.step else None
    small = comparable(quantize(floats, target.dtype, limits), target.dtype)
    before, after = (nearest(each, each, NEAREST, themselves=True) for each in (floats, small))
    same = float(kept(before, after, NEAREST).mean()) / NEAREST
    return Loss(rows=len(floats), nearest=NEAREST, kept=round(same, 4))
