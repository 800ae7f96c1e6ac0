"""Which model made which rows: a sample embedded again with every candidate and compared."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import numpy as np

from emberd.dtypes import Dtype
from emberd.errors import EmberdError
from emberd.migrate.embedding import BATCH, Embedded, Embedder
from emberd.migrate.likeness import SAME, likeness
from emberd.migrate.sampling import vectors_of
from emberd.migrate.turns import in_turn
from emberd.registry.spec import InputType, ModelSpec, Precision
from emberd.stores.base import Key, Row
from emberd.vectors import Matrix, Rows

Verdict = Literal["compatible", "re-embed", "mixed", "unknown"]
A_FEW = 0.1  # share of rows too small to decide whose a store is, whether they fit a model or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """How near a model comes to the sampled vectors; `share` of them reach a cosine of 0.999.

    For a store of bits, that is 0.9, and the cosine is that of 1 and -1; see `likeness`.
    """

    model: str
    precision: Precision
    fingerprint: str | None
    mean_cosine: float
    lowest_cosine: float
    share: float
    error: str | None = None


class Candidates:
    """Compares sampled rows with the same texts embedded again by each candidate.

    Args:
        rows: a sample with texts and usable vectors.
        dimensions: the size of their vectors.
        input_type: what the store's programs send with a text to store.
        dtype: what the numbers of the vectors are.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        dimensions: int,
        input_type: InputType | None,
        dtype: Dtype = "float",
    ) -> None:
        self._rows = rows
        self._texts = [row.text or "" for row in rows]
        self._dtype, self._dimensions = dtype, dimensions
        self._vectors = vectors_of(rows, dtype) if rows else np.zeros((0, dimensions), np.float32)
        self._input_type = input_type
        self._cosines: dict[str, Matrix] = {}
        self.found: list[Candidate] = []
        self.rows_per_s: dict[str, float] = {}
        self.truncated: dict[str, int] = {}

    def add(self, spec: ModelSpec, embedder: Embedder, *, keep: bool) -> None:
        """Embed the sample with one more model, then unload it unless `keep`."""
        fits_size = self._dimensions in (spec.dimensions, *spec.matryoshka)
        if not self._texts or not (fits_size or keep):
            return
        try:
            embedded = self._embed(spec, embedder, self._dimensions if fits_size else None)
        except EmberdError as error:
            if keep:
                raise  # without the default there is nothing to judge by
            self.found.append(
                Candidate(
                    model=spec.name, precision=spec.precision, fingerprint=None, mean_cosine=0.0,
                    lowest_cosine=0.0, share=0.0, error=error.message,
                )
            )  # fmt: skip
            return
        finally:
            if not keep:
                embedder.release(spec.name)
        if not fits_size:
            return  # it was only timed
        vectors, fingerprint = embedded
        found = likeness(self._vectors, vectors, self._dtype)
        self._cosines[spec.name] = found
        self.found.append(
            Candidate(
                model=spec.name, precision=spec.precision, fingerprint=fingerprint,
                mean_cosine=round(float(found.mean()), 6),
                lowest_cosine=round(float(found.min()), 6),
                share=round(float((found >= SAME[self._dtype]).mean()), 4),
            )
        )  # fmt: skip

    def _embed(
        self, spec: ModelSpec, embedder: Embedder, dimensions: int | None
    ) -> tuple[Rows, str]:
        def submit(batch: Sequence[str], space: str | None) -> "Future[Embedded]":
            return embedder.submit(
                batch, model=spec.name, dimensions=dimensions, input_type=self._input_type,
                fingerprint=space, dtype=self._dtype,
            )  # fmt: skip

        # This loads the model, so that loading does not count in the rate, and fixes the space.
        space = submit(self._texts[:1], None).result().fingerprint
        began_s = time.perf_counter()
        batches = (self._texts[at : at + BATCH] for at in range(0, len(self._texts), BATCH))
        answers = [answer for _, answer in in_turn(batches, lambda batch: submit(batch, space))]
        self.rows_per_s[spec.name] = len(self._texts) / (time.perf_counter() - began_s)
        self.truncated[spec.name] = sum(each.truncated for each in answers)
        return np.concatenate([each.vectors for each in answers]), space

    def candidate(self, name: str) -> Candidate:
        """Return the candidate of this name."""
        return next(each for each in self.found if each.model == name)

    def made_by(self, default: str) -> dict[str, list[Key]]:
        """Return the keys of the rows that each model reproduces; "" has those of no model.

        A row may fit several models whose spaces are nearly the same. The one with the highest
        share and mean gets all rows that fit it before the next is considered.
        """
        order = sorted(
            (each for each in self.found if each.model in self._cosines),
            key=lambda each: (each.share, each.mean_cosine, each.model == default),
            reverse=True,
        )
        found: dict[str, list[Key]] = {}
        left = np.ones(len(self._rows), bool)
        for each in order:
            mine = left & (self._cosines[each.model] >= SAME[self._dtype])
            if mine.any():
                found[each.model] = [self._rows[at].key for at in np.flatnonzero(mine).tolist()]
            left &= ~mine
        if left.any():
            found[""] = [self._rows[at].key for at in np.flatnonzero(left).tolist()]
        return found

    def verdict(self, default: str) -> tuple[Verdict, str | None]:
        """Return the verdict on the store, and the model that made all or most of its vectors.

        A few rows may reach the cosine by chance where another server made all of them, from other
        files of a model: their mean is near 1, but short texts come out nearly the same.
        """
        made_by = self.made_by(default)
        unmatched = len(made_by.pop("", ()))
        if self._few(len(self._rows) - unmatched):
            return "unknown", None
        model = max(made_by, key=lambda name: len(made_by[name]))
        share = {each.model: each.share for each in self.found}
        if share.get(default) == 1.0 or (list(made_by) == [default] and self._few(unmatched)):
            return "compatible", model
        if len(made_by) > 1 or not self._few(unmatched):
            return "mixed", model
        return "re-embed", model

    def _few(self, unmatched: int) -> bool:
        return unmatched <= A_FEW * len(self._rows)
