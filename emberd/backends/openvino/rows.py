"""Rows of texts as the graph takes them: who sees whom, at which position, and what is pooled.

A graph has one way to pool, the mean of some tokens; which ones those are is said here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emberd.backends.base import Pooling, TokenIds

Places = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch of R rows, W tokens wide, with N texts in it.

    `segments` numbers the texts of a row from 1, 0 is padding; `positions` are rows of the
    position table. `places` are tokens of the flattened batch that are pooled, text by text, and
    `starts` says where in it those of each text begin. All are int32: `(R, W)` three times, then
    `(n,)` and `(N,)`.
    """

    token_ids: TokenIds
    segments: TokenIds
    positions: Places
    places: Places
    starts: Places

    @classmethod
    def of(
        cls, token_ids: TokenIds, segments: TokenIds, *, pooling: Pooling, padding_id: int | None
    ) -> "Rows":
        """Describe a batch; for `padding_id` see `architecture.PostNorm`."""
        begins = np.ones(segments.shape, np.bool_)
        np.not_equal(segments[:, 1:], segments[:, :-1], out=begins[:, 1:])
        columns = np.arange(segments.shape[1], dtype=np.int32)
        first = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)  # of each one's text
        positions = columns - first
        if padding_id is not None:
            counts = token_ids != padding_id
            upto = counts.cumsum(axis=1, dtype=np.int32)
            before = np.take_along_axis(upto - counts, first, axis=1)
            positions = (upto - before) * counts + padding_id
        tokens = np.flatnonzero(segments)
        firsts = np.flatnonzero(begins & (segments != 0))
        starts = np.searchsorted(tokens, firsts)
        if pooling == "cls":
            tokens, starts = firsts, np.arange(len(firsts))
        elif pooling == "last":
            tokens = tokens[np.append(starts[1:], len(tokens)) - 1]
            starts = np.arange(len(firsts))
        whole = np.int32
        return cls(
            token_ids, segments, positions.astype(whole), tokens.astype(whole), starts.astype(whole)
        )

    def inputs(self) -> list[TokenIds]:
        """Return what the graph is given, in its order."""
        return [self.token_ids, self.segments, self.positions, self.places, self.starts]
