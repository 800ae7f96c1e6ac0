"""A map: rows of a store with their places, and what can be asked about them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emberd.atlas.holding import Held
from emberd.atlas.origins import Origins
from emberd.atlas.projection import principal_components
from emberd.dtypes import NUMPY
from emberd.errors import BadOptionError
from emberd.migrate.likeness import comparable
from emberd.migrate.sampling import positions
from emberd.vectors import Matrix, normalize

COMPONENTS = 50
MOST_SAMPLED = 20_000  # rows whose components are given away


class Chart:
    """The rows of a store in two dimensions, their first two principal components."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.origins = Origins.unknown(len(held.keys))
        self._components, self.shares = principal_components(held.vectors, COMPONENTS)

    @property
    def places(self) -> Matrix:
        """Where each row is, `(N, 2)`; 0 for a component that so few rows do not have."""
        found = np.zeros((len(self.held.keys), 2), "<f4")
        found[:, : self._components.shape[1]] = self._components[:, :2]
        return found

    def points(self) -> bytes:
        """Return x and y of each row as float32, then the group of each and whether it was checked.

        That is 8 N bytes, N bytes and N bytes; see `Origins`.
        """
        checked = self.origins.checked.astype(np.uint8)
        return self.places.tobytes() + self.origins.of_rows.tobytes() + checked.tobytes()

    def components(self, rows: int) -> tuple[bytes, int, int]:
        """Return a sample of M rows as numbers, M uint32, then their components, `(M, K)` float32.

        With M and K. M is `rows`, or fewer if the map has fewer.
        """
        chosen = sorted(positions(len(self.held.keys), min(rows, MOST_SAMPLED)))
        found = self._components[chosen]
        raw = np.asarray(chosen, "<u4").tobytes() + found.astype("<f4").tobytes()
        return raw, len(chosen), found.shape[1]

    def texts(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return key and the beginning of the text of each row. Raises BadOptionError."""
        held = self.held
        if not all(0 <= row < len(held.keys) for row in rows):
            raise BadOptionError(
                f"rows: the map has {len(held.keys)} rows, from 0 on.", field="rows",
                hint="Read the points again: the store may have been read anew.",
            )  # fmt: skip
        return [{"row": row, "key": held.keys[row], "text": held.excerpts[row]} for row in rows]

    def nearest(self, vector: Sequence[float], count: int) -> list[dict[str, Any]]:
        """Return the rows with the highest cosines with a vector of the store's dtype.

        Nearest first; each as in `texts`, with its cosine. For bits, that is the cosine of 1 and
        -1, and for int8 the one of the whole numbers.
        """
        dtype, vectors = self.held.shape.dtype, self.held.vectors
        asked = normalize(comparable(np.asarray([vector], NUMPY[dtype]), dtype))[0]
        cosines = vectors @ asked
        count = min(count, len(cosines))
        best = np.argpartition(-cosines, count - 1)[:count] if count else np.zeros(0, int)
        best = best[np.lexsort((best, -cosines[best]))]
        return [
            {**row, "cosine": round(float(cosines[row["row"]]), 6)}
            for row in self.texts(best.tolist())
        ]
