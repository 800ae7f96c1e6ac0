"""In place of `run_in_fresh_worker`: a model that answers at once."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np

from emberd.config.load import Config
from emberd.errors import EmberdError, TextTooLongError
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry
from emberd.vectors import Matrix, normalize
from emberd.verify import paraphrases
from emberd.verify.workers import Embedded, LoadedModel, WorkerRun

T = TypeVar("T")
MAX_TOKENS = 48


def direction(text: str) -> Matrix:
    """Return a direction of 64 dimensions that belongs to this text alone, `(1, 64)`."""
    drawn = np.random.default_rng(zlib.crc32(text.encode())).normal(size=(1, 64))
    return normalize(drawn.astype(np.float32))


def vectors_of(texts: Sequence[str]) -> Matrix:
    """Return `(N, 64)`: every text its own direction, and paraphrases near each other."""
    rows = []
    for text in texts:
        row = direction(text)
        if text in paraphrases.TEXTS:
            row = direction(f"pair {paraphrases.TEXTS.index(text) // 2}") + 0.3 * row
        rows.append(row)
    return normalize(np.concatenate(rows))


class FakeModel:
    """What `LoadedModel` does; a word is a token, and two more are added to each text."""

    def __init__(self, spec: ModelSpec, give: Callable[[ModelSpec, Sequence[str]], Matrix]) -> None:
        self.spec = spec
        self.max_tokens = MAX_TOKENS
        self.status = SimpleNamespace(backend="fake", compute="f32", last_load_s=0.1)
        self._give = give

    async def embed(
        self, texts: Sequence[str], *, truncate: bool = True, dimensions: int | None = None
    ) -> Embedded:
        """Embed texts."""
        counts = [len(text.split()) + 2 for text in texts]
        cut = tuple(row for row, count in enumerate(counts) if count > MAX_TOKENS)
        if cut and not truncate:
            raise TextTooLongError("too long")
        vectors = self._give(self.spec, texts)
        if dimensions:
            vectors = normalize(vectors[:, :dimensions])
        return Embedded(vectors, sum(min(count, MAX_TOKENS) for count in counts), cut)


@dataclass
class FakeWorkers:
    """Stands in for `run_in_fresh_worker`.

    `give` returns the vectors of a variant of the model; it may raise an error, as an answer.
    `refuse` returns why a variant cannot be loaded, or None. `leave` makes the lock entry that the
    worker leaves from the one that it was given. `ran` are the variants that were to be loaded.
    """

    give: Callable[[ModelSpec, Sequence[str]], Matrix] = lambda _, texts: vectors_of(texts)
    refuse: Callable[[ModelSpec], EmberdError | None] = lambda _: None
    leave: Callable[[LockEntry], LockEntry] = lambda entry: replace(entry, fingerprint="first")
    damage: str | None = None
    ran: list[ModelSpec] = field(default_factory=list)

    def __call__(
        self,
        config: Config,
        spec: ModelSpec,
        remembered: LockEntry,
        work: Callable[[LoadedModel], Awaitable[T]],
        *,
        keep_cache: bool = True,
    ) -> WorkerRun[T]:
        """Do as `run_in_fresh_worker` does."""
        self.ran.append(spec)
        if error := self.refuse(spec):
            raise error

        async def run() -> T:
            return await work(cast("Any", FakeModel(spec, self.give)))

        return WorkerRun(asyncio.run(run()), self.leave(remembered), self.damage)
