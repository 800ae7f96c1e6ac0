"""Turns token ids of texts into the rectangular arrays that an encoder takes."""

from collections.abc import Sequence

import numpy as np

from emberd.backends.base import TokenIds
from emberd.worker.tokenizer import Tokens


def pad(tokens: Sequence[Tokens]) -> tuple[TokenIds, TokenIds]:
    """Return token ids and mask of texts, both `(B, T)` int32, padded on the right."""
    return pad_rows([[text] for text in tokens], max(len(text.ids) for text in tokens))


def pad_rows(rows: Sequence[Sequence[Tokens]], width: int) -> tuple[TokenIds, TokenIds]:
    """Return token ids and a mask, `(R, width)` int32, of rows that hold several texts each.

    The mask numbers the texts of a row from 1; tokens that are not pooled get that number negated.
    See `backends.base`.
    """
    token_ids = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), np.int32)
    for row, texts in enumerate(rows):
        end = 0
        for number, text in enumerate(texts, 1):
            start, end = end, end + len(text.ids)
            token_ids[row, start:end] = text.ids
            mask[row, start:end] = number
            mask[row, start : start + text.unpooled] = -number
    return token_ids, mask
