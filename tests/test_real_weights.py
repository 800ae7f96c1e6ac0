"""Real weights: emberd's vectors are those of sentence-transformers, on both backends.

It needs the folder that `EMBERD_REAL_WEIGHTS` names. tests/reference/get_real_weights.py fills it
with downloads of 484 MB; without it all here is skipped. (tests/test_minilm.py has MiniLM,
whose weights are an installed package.) MLX's CPU build takes minutes for each model.
"""

import os
from pathlib import Path

import pytest

from tests.reference import check_real_sparse
from tests.reference.check_real_weights import (
    AT_ONCE,
    ENTRIES,
    LOWEST,
    folder_of,
    lowest_cosine_of,
)

WEIGHTS = os.environ.get("EMBERD_REAL_WEIGHTS")


@pytest.mark.parametrize("backend", AT_ONCE)
@pytest.mark.parametrize("entry", ENTRIES)
def test_vectors_are_those_of_sentence_transformers(
    entry: str, backend: str, tmp_path: Path
) -> None:
    if not WEIGHTS:
        pytest.skip("EMBERD_REAL_WEIGHTS names no folder; see tests/reference/README.md")
    name = ENTRIES[entry]
    if not folder_of(name, Path(WEIGHTS)).is_dir():
        pytest.skip(f"python -m tests.reference.get_real_weights {name} {WEIGHTS}")

    assert lowest_cosine_of(entry, backend, Path(WEIGHTS), tmp_path) >= LOWEST


@pytest.mark.parametrize("backend", AT_ONCE)
def test_sparse_vectors_are_those_of_sentence_transformers(backend: str, tmp_path: Path) -> None:
    if not WEIGHTS:
        pytest.skip("EMBERD_REAL_WEIGHTS names no folder; see tests/reference/README.md")
    name = check_real_sparse.NAME
    if not (Path(WEIGHTS) / name).is_dir():
        pytest.skip(f"python -m tests.reference.get_real_weights {name} {WEIGHTS}")

    largest, _ = check_real_sparse.largest_difference(backend, Path(WEIGHTS), tmp_path)
    assert largest <= check_real_sparse.FAR
