"""Vectors that sentence-transformers made with the weights of some models, shipped with emberd.

One file in `references/` for each file of weights, found by its SHA-256, whatever entry uses it.
tests/verify/make_reference.py makes them from tests/reference, which documents how the vectors were
made.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

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


def reference_for(weights_sha256: str | None) -> Reference | None:
    """Return the vectors that were made with these weights, if any are shipped."""
    return next((each for each in shipped() if each.weights_sha256 == weights_sha256), None)


def shipped() -> Iterator[Reference]:
    """Yield every reference, in the order of the files' names."""
    folder = files("emberd.verify").joinpath("references")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        yield _read(json.loads(file.read_bytes()))


def _read(data: dict[str, Any]) -> Reference:
    rows = [np.frombuffer(base64.b64decode(text["vector"]), "<f4") for text in data["texts"]]
    return Reference(
        model=data["model"],
        weights_sha256=data["weights_sha256"],
        texts=tuple(text["text"] for text in data["texts"]),
        most_tokens=max(text["tokens"] for text in data["texts"]),
        vectors=np.stack(rows),
    )
