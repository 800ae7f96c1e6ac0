"""Turns token ids of texts into the rectangular arrays that an encoder takes."""

from collections.abc import Sequence

import numpy as np

from emberd.backends.base import TokenIds
from emberd.worker.tokenizer import Tokens


def pad(tokens: Sequence[Tokens], *, pairs: bool = False) -> tuple[TokenIds, ...]:
    """Return the arrays of texts, one in each row; see `pad_rows`."""
    rows = [[text] for text in tokens]
    return pad_rows(rows, max(len(text.ids) for text in tokens), pairs=pairs)


def pad_rows(
    rows: Sequence[Sequence[Tokens]], width: int, *, pairs: bool = False
) -> tuple[TokenIds, ...]:
    """Return token ids and a mask, `(R, width)` int32, of rows that hold several texts each.

    The mask numbers the texts of a row from 1; tokens that are not pooled get that number negated.
    With `pairs`, the third array has the token types. See `backends.base`.
    """
    token_ids = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), np.int32)
    types = np.zeros((len(rows), width), np.int32) if pairs else None
    for row, texts in enumerate(rows):
        end = 0
        for number, text in enumerate(texts, 1):
            start, end = end, end + len(text.ids)
            token_ids[row, start:end] = text.ids
            mask[row, start:end] = number
            mask[row, start : start + text.unpooled] = -number
            if types is not None:
                types[row, end - text.of_type_1 : end] = 1
    return (token_ids, mask) if types is None else (token_ids, mask, types)
