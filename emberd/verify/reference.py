"""Vectors that sentence-transformers made with the weights of some models, shipped with emberd.

One file in `references/` for each model, found by the SHA-256 of its weights, whatever entry uses
them. Where the vectors were made with a conversion of the published weights, it is found by the
repository on the Hub. tests/verify/make_reference.py makes them from tests/reference, which
documents how the vectors were made.
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
    """Texts and their vectors `(N, D)`, float32.

    `model` is the repository on the Hub. `weights_sha256` is of the weights file; None if that of
    the repository is another file with the same weights.
    """

    model: str
    weights_sha256: str | None
    texts: tuple[str, ...]
    most_tokens: int
    vectors: Matrix


def reference_for(weights_sha256: str | None, repository: str | None) -> Reference | None:
    """Return the vectors that were made with these weights, if any are shipped.

    Args:
        weights_sha256: of the weights in full precision, if they are one file.
        repository: where on the Hub they came from, if they did.
    """
    for each in shipped():
        if each.weights_sha256:
            if each.weights_sha256 == weights_sha256:
                return each
        elif each.model == repository:
            return each
    return None


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
