"""Random inputs for the conformance check, for each kind of model, and which answers are the same.

A text of an embedding model is token ids and mask; a pair of a re-ranker also has token types, of
which the later half of its tokens has the second.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from emberd.backends.base import Kind, TokenIds
from emberd.vectors import Matrix

_COSINE: Final = 0.9999  # of vectors
_LOGIT: Final = 1e-2  # of logits that are about 1; arithmetic may be in bfloat16


class Inputs:
    """Token ids that are valid for the model in a folder, and batches of them."""

    def __init__(self, folder: Path, max_tokens: int | None, kind: Kind) -> None:
        """Draw some; without `max_tokens`, the longest is as config.json says."""
        config = json.loads(folder.joinpath("config.json").read_text())
        draw = np.random.default_rng(7)
        self._kind = kind
        self._vocabulary: int = config["vocab_size"]
        longest = max_tokens or config["max_position_embeddings"]
        self.long, self.medium, self.short, self.one_token = (
            draw.integers(0, self._vocabulary, length).tolist() for length in (longest, 9, 5, 1)
        )

    def batch(self, *texts: Sequence[int], filler: int = 0) -> tuple[TokenIds, ...]:
        """Return the arrays of texts, one in each row, padded on the right with `filler`."""
        return self.packed(*([text] for text in texts), filler=filler)

    def packed(self, *rows: Sequence[Sequence[int]], filler: int = 0) -> tuple[TokenIds, ...]:
        """Return the arrays of rows of several texts."""
        width = max(sum(map(len, row)) for row in rows)
        token_ids = np.full((len(rows), width), filler % self._vocabulary, np.int32)
        mask, types = np.zeros_like(token_ids), np.zeros_like(token_ids)
        for place, row in enumerate(rows):
            start = 0
            for number, text in enumerate(row, 1):
                end = start + len(text)
                token_ids[place, start:end] = text
                mask[place, start:end] = number
                types[place, start + (len(text) + 1) // 2 : end] = 1
                start = end
        return (token_ids, mask, types) if self._kind == "rerank" else (token_ids, mask)

    def same(self, a: Matrix, b: Matrix) -> bool:
        """Say whether all rows of two `(B, D)` are the same: point the same way, or are as high."""
        if a.shape != b.shape:
            return False
        a, b = a.astype(np.float64), b.astype(np.float64)
        if self._kind == "rerank":
            return bool((np.abs(a - b) <= _LOGIT * np.maximum(1, np.abs(a))).all())
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return bool(((a * b).sum(axis=1) > _COSINE * lengths).all())
