"""Token ids of texts, load requests, and cosines, for all tests of backends."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from emberd.backends.base import (
    Compute,
    Encoder,
    Kind,
    LoadRequest,
    Pooling,
    Precision,
    TokenIds,
)
from emberd.vectors import Matrix


def a_request(
    folder: Path,
    cache: Path,
    *,
    kind: Kind = "embed",
    pooling: Pooling = "mean",
    precision: Precision = "f32",
    compute: Compute = "auto",
    cache_key: str = "key",
    threads: int = 0,
    streams: int = 0,
) -> LoadRequest:
    """A request; only what a test names differs."""
    return LoadRequest(
        folder=folder,
        kind=kind,
        pooling=pooling,
        precision=precision,
        compute=compute,
        cache=cache,
        cache_key=cache_key,
        threads=threads,
        streams=streams,
    )


def tokenize(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids with the tokenizer of a model folder, cut at 512 and not padded."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def batch_of(*texts: list[int]) -> tuple[TokenIds, TokenIds]:
    """Token ids and mask, padded on the right."""
    width = max(map(len, texts))
    token_ids = np.zeros((len(texts), width), np.int32)
    mask = np.zeros_like(token_ids)
    for row, text in enumerate(texts):
        token_ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return token_ids, mask


def one_by_one(encoder: Encoder, texts: Sequence[list[int]]) -> Matrix:
    """The vector of each text, encoded alone."""
    return np.concatenate([encoder.encode(*batch_of(text)) for text in texts])
