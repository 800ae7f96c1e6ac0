"""Sparse vectors of queries without a model: each token that occurs has the weight of a table.

As OpenSearch's document models want it (arXiv:2411.04403), in the layouts of `models.splade`.
Without special tokens, as in sentence-transformers' `SparseStaticEmbedding`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emberd.backends.tensors import open_tensors
from emberd.errors import ModelLoadError
from emberd.models.json_files import read_object
from emberd.vectors import Matrix
from emberd.worker.sparse import Entries
from emberd.worker.tokenizer import Tokenizer, Tokens


class QueryTable:
    """The weights in `file`, and the tokenizer beside it, or else the one of the model.

    `entries` is how many there must be; `normalizer` is as `Tokenizer` has it.

    Raises:
        ModelLoadError: one of the files is missing, damaged, or of another size.
    """

    def __init__(
        self,
        file: Path,
        model: Path,
        *,
        entries: int,
        max_tokens: int,
        normalizer: Mapping[str, Any] | None,
    ) -> None:
        own = file.parent / "tokenizer.json"
        folder = file.parent if own.is_file() else model
        self._tokenizer = Tokenizer(folder, max_tokens, normalizer, special=False)
        if file.suffix == ".json":
            self._weights = self._read_json(file, entries)
        else:
            tensor = open_tensors(file).get("weight")
            if tensor is None or tensor.shape != (entries,):
                raise ModelLoadError(f"{file} has no `weight` of {entries} numbers.")
            tensor.check()
            self._weights = tensor.floats().copy()  # the file may be replaced

    def look_up(self, texts: Sequence[str], prompt: str) -> tuple[list[Tokens], list[Entries]]:
        """Return the tokens of queries, and their vectors."""
        tokens = self._tokenizer.encode(texts, prompt)
        return tokens, [self._entries(text.ids) for text in tokens]

    def _entries(self, ids: Sequence[int]) -> Entries:
        indices = np.unique(np.array(ids, np.intp))
        values = self._weights[indices]
        kept = values != 0
        return indices[kept], values[kept]

    def _read_json(self, file: Path, entries: int) -> Matrix:
        """Read `idf.json`: tokens, and the weight of each."""
        weights = np.zeros(entries, np.float32)
        for token, weight in read_object(file).items():
            index = self._tokenizer.id_of(token)
            if index is None or index >= entries or not isinstance(weight, int | float):
                raise ModelLoadError(f"{file} does not fit the tokenizer beside it.")
            weights[index] = weight
        if not np.isfinite(weights).all():
            raise ModelLoadError(f"{file} has numbers that are not finite.")
        return weights
