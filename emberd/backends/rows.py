"""A packed batch as a model takes it: attention, positions, and which tokens are pooled.

A dense model has only one way to pool, the mean of some tokens; this module says which ones they
are. A sparse one takes the largest of all tokens, in groups of a fixed size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emberd.backends.base import Pooling, TokenIds

Integers = npt.NDArray[np.int32]

BLOCK_TOKENS = 512
"""A sparse model scores so many tokens at once, at most."""

GROUP_SIZES = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64])
"""How many tokens a group may have; few, as each makes shapes of its own."""

GROUP_COST = 1
"""What a group costs, in tokens: its row, as long as the vocabulary, is copied and compared.

The largest of a group is found with ordinary operations, and only these are brought together text
by text. Large groups are few, but a text that does not fill its last one is scored for longer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A batch of R rows, W tokens wide, with N texts in it. All int32.

    Attributes:
        token_ids: `(R, W)`.
        segments: `(R, W)`; the number of a token's text in its row, from 1; 0 is padding.
        queries: the same, for the query side of attention; `(R, 1)` of ones if no row has a second
            text, so that a long text needs no `(W, W)` mask.
        positions: `(R, W)`; rows of the position table.
        places: `(n,)`; indices in the flattened batch of the tokens to pool, text by text.
        starts: `(N,)`; where in `places` each text begins.

            With pooling `max`, all tokens of each text are in groups of M, the last one filled up
            with the text's last token, and the groups in K blocks of B, the last one filled up
            with the last group. `places` is `(K, M, B)`: of each block first the first token of
            each group, then the second of each; `starts` is `(K * B,)`: the number of each
            group's text.
        types: `(R, W)`; token types of pairs of texts, or None.
        is_grouped: whether pooling is `max`.
        has_chunks: whether the texts are chunks of one text, whose tokens they may share.
    """

    token_ids: TokenIds
    segments: TokenIds
    queries: TokenIds
    positions: Integers
    places: Integers
    starts: Integers
    types: TokenIds | None = None
    is_grouped: bool = False
    has_chunks: bool = False

    @classmethod
    def of(
        cls,
        token_ids: TokenIds,
        mask: TokenIds,
        types: TokenIds | None = None,
        *,
        pooling: Pooling,
        padding_id: int | None,
        chunks: Integers | None = None,
    ) -> "Rows":
        """Describe a batch.

        See `base.Encoder` for `mask` and `chunks`, `Architecture` for `padding_id`.
        """
        segments = np.abs(mask)
        begins = np.ones(segments.shape, np.bool_)
        np.not_equal(segments[:, 1:], segments[:, :-1], out=begins[:, 1:])
        columns = np.arange(segments.shape[1], dtype=np.int32)
        first = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)  # where its text begins
        positions = columns - first
        if padding_id is not None:
            counts = token_ids != padding_id
            upto = counts.cumsum(axis=1, dtype=np.int32)
            before = np.take_along_axis(upto - counts, first, axis=1)
            positions = (upto - before) * counts + padding_id
        tokens = np.flatnonzero(mask > 0)
        firsts = np.flatnonzero(begins & (segments != 0))
        starts = np.searchsorted(tokens, firsts)
        if chunks is not None:
            tokens, starts = _in_chunks(chunks)
        elif pooling == "cls":
            tokens, starts = tokens[starts], np.arange(len(firsts))
        elif pooling == "last":
            tokens = tokens[np.append(starts[1:], len(tokens)) - 1]
            starts = np.arange(len(firsts))
        elif pooling == "max":
            tokens, starts = _grouped(tokens, starts)
        several = segments.max() > 1
        return cls(
            token_ids=token_ids,
            segments=segments,
            queries=segments if several else np.ones((len(segments), 1), np.int32),
            positions=positions.astype(np.int32),
            places=np.ascontiguousarray(tokens, np.int32),
            starts=starts.astype(np.int32),
            types=types,
            is_grouped=pooling == "max",
            has_chunks=chunks is not None,
        )

    @property
    def texts(self) -> int:
        """How many texts there are: N."""
        return int(self.starts[-1]) + 1 if self.is_grouped else len(self.starts)

    def inputs(self) -> list[TokenIds]:
        """Return the inputs of OpenVINO's graph, in its order."""
        return [
            self.token_ids, self.segments, self.queries, self.positions, self.places, self.starts,
            *(() if self.types is None else (self.types,)),
        ]  # fmt: skip


def _in_chunks(chunks: Integers) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return `places` and `starts` of the chunks of the only text, `(N, 2)`."""
    places = [np.arange(first, end) for first, end in chunks.tolist()]
    ends = np.cumsum(chunks[:, 1] - chunks[:, 0])
    return np.concatenate(places), np.append(0, ends[:-1])


def _grouped(
    tokens: npt.NDArray[np.intp], starts: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return `places` and `starts` for pooling `max`; see `Rows`."""
    counts = np.diff(starts, append=len(tokens))
    size, blocks, in_block = _cheapest(counts)
    groups = -(-counts // size)  # of each text
    texts = np.repeat(np.arange(len(starts)), groups)
    ends = groups.cumsum()
    first = (np.arange(len(texts)) - (ends - groups)[texts]) * size  # of each group in its text
    within = np.minimum(first[:, None] + np.arange(size), counts[texts, None] - 1)  # (G, M)
    places = tokens[starts[texts, None] + within]
    filled = np.minimum(np.arange(blocks * in_block), len(texts) - 1)
    return places[filled].reshape(blocks, in_block, size).swapaxes(1, 2), texts[filled]


def _cheapest(counts: npt.NDArray[np.intp]) -> tuple[int, int, int]:
    """Return M, K and B for texts of so many tokens; see `Rows`."""
    groups = (-(-counts[:, None] // GROUP_SIZES)).sum(axis=0)
    blocks = -(-groups // (BLOCK_TOKENS // GROUP_SIZES))
    in_block = -(-groups // blocks)
    best = np.argmin(blocks * in_block * (GROUP_SIZES + GROUP_COST))
    return int(GROUP_SIZES[best]), int(blocks[best]), int(in_block[best])
