"""The answers of the parts of a request, put together in the order of their texts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any

from emberd.client.answers import Chunk, Chunks, Embeddings, Object, SparseEmbeddings, Usage


def join_embeddings(starts: Sequence[int], parts: Sequence[Embeddings]) -> Embeddings:
    """Return one answer; `starts` has the place of each part's first text. All of one space."""
    import numpy as np

    found = [part.chunks for part in parts]
    chunks = None if None in found else _shifted(starts, [each or () for each in found])
    return replace(
        parts[0],
        vectors=np.concatenate([part.vectors for part in parts]),
        chunks=chunks,
        **_beside(parts),
    )


def join_sparse(starts: Sequence[int], parts: Sequence[SparseEmbeddings]) -> SparseEmbeddings:
    """Return one answer; see `join_embeddings`."""
    del starts
    vectors = tuple(chain.from_iterable(part.vectors for part in parts))
    return replace(parts[0], vectors=vectors, **_beside(parts))


def join_chunks(starts: Sequence[int], parts: Sequence[Chunks]) -> Chunks:
    """Return one answer; see `join_embeddings`."""
    return replace(parts[0], chunks=_shifted(starts, [part.chunks for part in parts]))


def _beside(parts: Sequence[Embeddings | SparseEmbeddings]) -> Object:
    """Return the fields beside the vectors; `truncated` counts vectors, also those of chunks."""
    before = accumulate((len(part.vectors) for part in parts), initial=0)
    cached: list[Any] = [part.cached for part in parts]
    return {
        "truncated": tuple(
            first + each
            for first, part in zip(before, parts, strict=False)
            for each in part.truncated
        ),
        "usage": Usage(sum(part.usage.tokens for part in parts)),
        "cached": None if None in cached else sum(cached),
    }


def _shifted(starts: Sequence[int], parts: Sequence[Sequence[Chunk]]) -> tuple[Chunk, ...]:
    return tuple(
        replace(each, text=start + each.text)
        for start, chunks in zip(starts, parts, strict=True)
        for each in chunks
    )
