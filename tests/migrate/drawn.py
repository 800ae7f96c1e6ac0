"""Vectors without a model: each text has its own, drawn by chance, in milliseconds."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Unpack

import numpy as np

from emberd.migrate.embedding import Embedded, Options, Target
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.turns import IN_FLIGHT
from emberd.vectors import Matrix
from tests.migrate import stores

DIMENSIONS = 8
ROWS = 20
TEXTS = [f"text {at}" for at in range(ROWS)]
NEW = Target(model="new", dimensions=DIMENSIONS, fingerprint="of new", probes="")


def vectors(texts: Sequence[str], model: str) -> Matrix:
    """Return this model's vectors, `(N, D)`."""
    seeds = [hashlib.sha256(f"{model} {text}".encode()).digest()[:4] for text in texts]
    drawn = [
        np.random.default_rng(int.from_bytes(seed)).standard_normal(DIMENSIONS) for seed in seeds
    ]
    return np.array(drawn, "<f4")


class DrawingEmbedder:
    """An `Embedder`; `before` is called with the texts of every request, and may raise."""

    at_once = IN_FLIGHT

    def __init__(self, before: Callable[[Sequence[str]], object] = lambda _: None) -> None:
        self._before = before

    def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
        """Draw them."""
        answer: Future[Embedded] = Future()
        try:
            self._before(texts)
        except Exception as error:  # noqa: BLE001 - as a future does
            answer.set_exception(error)
        else:
            model = options["model"]
            answer.set_result(Embedded(vectors(texts, model), f"of {model}"))
        return answer

    def release(self, model: str) -> None:
        """Do nothing: there is no model."""
        del model


def make_cmem(folder: Path, *, journal: str = "wal") -> Path:
    """Make a cmem folder with the vectors of the model `old`; return its database."""
    return stores.make_cmem(folder, TEXTS, vectors(TEXTS, "old"), journal=journal)


def holds(ref: StoreRef, model: str) -> bool:
    """Whether a store's first rows have the vectors of this model."""
    return np.array_equal(stores.read(Path(ref.address))[1][:ROWS], vectors(TEXTS, model))
