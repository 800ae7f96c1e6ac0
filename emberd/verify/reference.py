"""Reference vectors made by sentence-transformers, shipped with emberd.

tests/verify/make_reference.py makes `minilm.json` from tests/reference, which documents how the
vectors were made.
"""

import base64
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from emberd.vectors import Matrix


@dataclass(frozen=True, slots=True)
class Reference:
    """Texts and their vectors `(N, D)`, float32; `weights_sha256` is of the weights file."""

    model: str
    weights_sha256: str
    texts: tuple[str, ...]
    most_tokens: int
    vectors: Matrix


@cache
def minilm() -> Reference:
    """Return the vectors of all-MiniLM-L6-v2 in full precision."""
    data = json.loads(files("emberd.verify").joinpath("minilm.json").read_bytes())
    rows = [np.frombuffer(base64.b64decode(text["vector"]), "<f4") for text in data["texts"]]
    return Reference(
        model=data["model"],
        weights_sha256=data["weights_sha256"],
        texts=tuple(text["text"] for text in data["texts"]),
        most_tokens=max(text["tokens"] for text in data["texts"]),
        vectors=np.stack(rows),
    )
