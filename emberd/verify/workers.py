"""A model in a fresh worker of its own: no server's worker is asked, and the lock is a copy.

What looks must not change what it looks at: each run has a state folder that is deleted after it,
whose lock holds what the caller wants the worker to remember.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

import numpy as np

from emberd.config.load import Config
from emberd.pool.manager import EmbedRequest, Pool
from emberd.pool.status import VECTORS_DAMAGED, ModelStatus
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.vectors import Matrix

PATIENCE_S = 600.0  # a slow backend is not a wrong one
MOST_TEXTS = 2048

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer to one request; `vectors` is `(N, D)`."""

    vectors: Matrix
    tokens: int
    truncated: tuple[int, ...]


class Subject:
    """The loaded model. `status` is what `/models` would say of it."""

    def __init__(self, pool: Pool, status: ModelStatus) -> None:
        self._pool = pool
        self.spec = pool.default
        self.status = status

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text it takes."""
        assert self.status.max_tokens  # a model that is loaded knows
        return self.status.max_tokens

    async def ask(
        self, texts: Sequence[str], *, truncate: bool = True, dimensions: int | None = None
    ) -> Asked:
        """Embed texts in one request. Raises `EmberdError`."""
        answer = await self._pool.embed(
            EmbedRequest(texts=texts, truncate=truncate, dimensions=dimensions, encoding="raw")
        )
        rows = [np.frombuffer(fragment, "<f4") for fragment in answer.fragments]
        return Asked(np.stack(rows), answer.tokens, tuple(answer.truncated))


@dataclass(frozen=True, slots=True)
class Ran(Generic[T]):
    """What came of a run, and what its worker made the lock remember.

    `damage` says what a worker computed with that was damaged; the result may be of its vectors.
    """

    result: T
    entry: LockEntry
    damage: str | None


def in_fresh_worker(
    config: Config,
    spec: ModelSpec,
    remembered: LockEntry,
    work: Callable[[Subject], Awaitable[T]],
    *,
    keep_cache: bool = True,
) -> Ran[T]:
    """Load a model, let `work` ask it, and end its worker.

    Args:
        config: limits and homes; it need not know this model.
        spec: the model, which may be another variant of one in the registry.
        remembered: its entry in the lock, as its worker shall see it.
        work: what to do with it.
        keep_cache: whether what the backend caches is worth keeping.

    Raises:
        EmberdError: it cannot be loaded, or `work` raised it.
    """
    with TemporaryDirectory(prefix="emberd-verify-") as scratch:
        homes = replace(
            config.homes,
            state=Path(scratch, "state"),
            cache=config.homes.cache if keep_cache else Path(scratch, "cache"),
        )
        limits = replace(
            config.settings.limits,
            idle_unload=PATIENCE_S,
            max_texts=MOST_TEXTS,
            max_queued_texts=MOST_TEXTS,
            request_timeout=PATIENCE_S,
        )
        alone = replace(
            config,
            catalog=Catalog([replace(spec, idle_unload=None)]),
            homes=homes,
            settings=replace(config.settings, default=spec.name, limits=limits),
        )
        lock = LockFile(homes.state)
        lock.put(spec.name, remembered)
        result, damage = asyncio.run(_run(alone, work))
        return Ran(result, lock.read()[spec.name], damage)


async def _run(config: Config, work: Callable[[Subject], Awaitable[T]]) -> tuple[T, str | None]:
    async with Pool(config) as pool:
        result = await work(Subject(pool, await pool.load(None)))
        found = (each["message"] for each in pool.warnings() if each["code"] == VECTORS_DAMAGED)
        return result, next(found, None)
