"""The references of `tests/reference/make_late.py`: chunks of texts that were read whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emberd.vectors import Matrix

REFERENCE = Path(__file__).parents[1] / "reference"
SAID: dict[str, Any] = json.loads((REFERENCE / "late.json").read_text(encoding="utf-8"))
PROMPT: str = SAID["prompt"]
NAMES = sorted(SAID.keys() - {"prompt"})

Span = tuple[int, int]


@dataclass(frozen=True)
class Text:
    """A text, its chunks in code points, and which tokens they have without a prompt."""

    text: str
    spans: list[Span]
    chunks: list[Span]


def texts_of(name: str) -> list[Text]:
    """Return the texts of a tiny checkpoint."""
    return [
        Text(each["text"], [*map(tuple, each["spans"])], [*map(tuple, each["chunks"])])
        for each in SAID[name]
    ]


def vectors_of(name: str, *, prompted: bool = False) -> Matrix:
    """Return what transformers makes of the chunks of all its texts, `(N, D)`."""
    with np.load(REFERENCE / "late.npz") as arrays:
        vectors: Matrix = arrays[f"{name} with prompt" if prompted else name]
        return vectors
