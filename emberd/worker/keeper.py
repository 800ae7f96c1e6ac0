"""Texts whose vectors are kept on disk are answered without the model; what it gives is kept.

Runs in the threads that read and tokenize (`answer`) and in those that run batches (`keep`).
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from emberd.cache.cache import VectorCache
from emberd.cache.rows import Kept
from emberd.vectors import Matrix, finite_rows
from emberd.worker.batcher import Batch, Batcher
from emberd.worker.inference import as_asked, fragments
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Sender
from emberd.worker.tokenizer import Tokens
from emberd.worker.work import Ask, Slice, Work, decisive


class Keeper:
    """The cache of vectors, as the worker's threads use it."""

    def __init__(self, cache: VectorCache, loaded: Loaded, batcher: Batcher, send: Sender) -> None:
        self._cache = cache
        self._loaded = loaded
        self._batcher = batcher
        self._send = send

    def answer(self, slices: Sequence[Slice]) -> Sequence[Slice]:
        """Answer texts whose vectors are kept; return the others.

        The requests are alike: `decisive` is the same for all of them.
        """
        first = slices[0][0]
        if first.alike is None:  # they want every text computed
            return slices
        began_s = time.monotonic()
        texts = {work.request.texts[index]: None for work, indices in slices for index in indices}
        found = self._cache.find(decisive(first.request), list(texts))
        if not found:
            return slices
        left = []
        for work, indices in slices:
            rest = self._answer(work, indices, found, began_s)
            if rest:
                left.append((work, rest))
        return left

    def _answer(
        self, work: Work, indices: Sequence[int], found: Mapping[str, Kept], began_s: float
    ) -> Sequence[int]:
        """Answer what was found of one request; return the indices of the rest."""
        request, asks, kept_rows = work.request, [], []
        for index in indices:
            kept = found.get(request.texts[index])
            if kept and (request.truncate or kept.tokens == kept.uncut):
                # How many tokens there were is all that anybody still asks.
                asks.append(Ask(work, index, Tokens(range(kept.tokens), kept.uncut)))
                kept_rows.append(kept.vector)
        if not asks:
            return indices
        rows = np.frombuffer(b"".join(kept_rows), "<f4").reshape(len(asks), -1)
        rows = as_asked(rows, asks, self._loaded)
        usable = finite_rows(rows)  # nothing may be left of one that is cut
        asks = [ask for ask, is_usable in zip(asks, usable, strict=True) if is_usable]
        spent_s = time.monotonic() - began_s
        timing = {"tokenize_s": spent_s, "queue_s": 0.0, "model_s": 0.0, "cached": len(asks)}
        answered = {ask.index for ask in asks}
        self._batcher.settle(work, list(answered), spent_s)
        self._send(*fragments(work, asks, rows[usable], timing, self._loaded))
        return [index for index in indices if index not in answered]

    def keep(self, batch: Batch, rows: Matrix) -> None:
        """Keep what a batch gave: `(N, D)`, before it was cut and normalized."""
        usable = finite_rows(rows).tolist()
        kept: defaultdict[tuple[object, ...], dict[str, Kept]] = defaultdict(dict)
        for item, row, is_usable in zip(batch.items, rows.astype("<f4"), usable, strict=True):
            if is_usable and item.work.alike is not None:
                request, tokens = item.work.request, item.tokens
                text = request.texts[item.index]
                kept[decisive(request)][text] = Kept(len(tokens.ids), tokens.uncut, row.tobytes())
        for decides, vectors in kept.items():
            self._cache.keep(decides, vectors)
