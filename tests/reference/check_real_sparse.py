"""A real sparse model on both backends in float32: the vectors in `real_sparse.json`.

    .venv/bin/python -m tests.reference.check_real_sparse FOLDER

FOLDER is the one that `get_real_weights.py` fills. As in `check_real_weights.py`, texts are
embedded alone and in batches.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from emberd.backends import plugins
from emberd.backends.base import LoadRequest
from emberd.worker.tokenizer import Tokenizer
from tests.reference.check_real_weights import AT_ONCE, REFERENCE, embed, texts

NAME = "splade-tiny"
FAR = 1e-4  # of numbers up to about 3


def main(weights: Path) -> None:
    """Compare on every backend, and print the largest differences.

    Raises:
        SystemExit: the vectors differ.
    """
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for backend in AT_ONCE:
            found, said = largest_difference(backend, weights, Path(scratch, backend))
            sys.stdout.write(f"{NAME} on {backend}: largest difference {found:.1e}; {said}\n")
            worst = max(worst, found)
    if worst > FAR:
        raise SystemExit(1)


def largest_difference(backend: str, weights: Path, cache: Path) -> tuple[float, str]:
    """Return the largest difference of any number, and how many are zero in only one of the two."""
    told = json.loads((REFERENCE / "real_sparse.json").read_text(encoding="utf-8"))
    folder = weights / NAME
    request = LoadRequest(
        folder=folder,
        kind="sparse",
        pooling="max",
        precision="f32",
        compute="f32",
        cache=cache,
        cache_key="key",
    )
    encoder = plugins.load(backend).load(request)
    tokens = Tokenizer(folder, told["max_tokens"]).encode(texts())
    expected = np.zeros((len(tokens), told["dimensions"]), np.float32)
    for row, each in zip(expected, told["rows"], strict=True):
        row[each["indices"]] = each["values"]
    largest, only_one = 0.0, 0
    for size in AT_ONCE[backend]:
        vectors = embed(encoder, tokens, size)
        largest = max(largest, float(np.abs(vectors - expected).max()))
        only_one = max(only_one, int(((vectors > 0) != (expected > 0)).sum()))
    kept = int((expected > 0).sum())
    return largest, f"{only_one} of {kept} numbers above 0 are so in only one of the two"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
