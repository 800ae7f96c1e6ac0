"""Runs a model in a fresh worker with a copy of the lock.

Verifying must not change what it verifies, so it uses no running server, and each run has a
temporary state folder whose lock holds what the caller wants the worker to remember.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

import numpy as np

from emberd.config.load import Config
from emberd.pool.manager import Pool
from emberd.pool.request import EmbedRequest
from emberd.pool.status import ModelStatus
from emberd.ranking import logits
from emberd.registry.catalog import Catalog
from emberd.registry.spec import InputType, ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.vectors import Matrix

PATIENCE_S = 600.0  # a slow backend is not a wrong one
MOST_TEXTS = 2048

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one request; `vectors` is `(N, D)`, float32."""

    vectors: Matrix
    tokens: int
    truncated: tuple[int, ...]


class LoadedModel:
    """The model under test. `status` is what `/models` would say about it."""

    def __init__(self, pool: Pool, status: ModelStatus) -> None:
        self._pool = pool
        self.spec = pool.default
        self.status = status

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text it reads."""
        assert self.status.max_tokens  # a model that is loaded knows
        return self.status.max_tokens

    async def embed(
        self, texts: Sequence[str], *, truncate: bool = True, dimensions: int | None = None
    ) -> Embedded:
        """Embed texts in one request. Raises `EmberdError`."""
        asked = EmbedRequest(
            texts=texts, truncate=truncate, dimensions=dimensions, encoding="raw", cache=False
        )
        answer = await self._pool.embed(asked)
        rows = [np.frombuffer(fragment, "<f4") for fragment in answer.fragments]
        return Embedded(np.stack(rows), answer.tokens, tuple(answer.truncated))

    async def embed_sparse(
        self, texts: Sequence[str], role: InputType = "document"
    ) -> tuple[Matrix, set[int]]:
        """Return sparse vectors with their zeros, `(N, V)`, and the places of texts cut."""
        name = self.spec.name
        asked = EmbedRequest(texts=texts, model=name, input_type=role, takes=("sparse",))
        answer = await self._pool.embed(asked)
        rows = np.zeros((len(texts), answer.dimensions), np.float32)
        for row, fragment in zip(rows, map(json.loads, answer.fragments), strict=True):
            row[fragment["indices"]] = fragment["values"]
        return rows, {*answer.truncated}

    async def rerank(self, query: str, texts: Sequence[str]) -> tuple[Sequence[float], set[int]]:
        """Return the logit of each text, and the places of those that were cut."""
        asked = EmbedRequest(
            texts=texts, query=query, model=self.spec.name, encoding="raw", cache=False
        )
        answer = await self._pool.embed(asked)
        return logits(answer.fragments), {*answer.truncated}


@dataclass(frozen=True, slots=True)
class WorkerRun(Generic[T]):
    """The result of a run, and the lock entry that its worker left.

    If the worker used something that turned out to be damaged, `damage` says what, and `result` may
    be wrong.
    """

    result: T
    entry: LockEntry
    damage: str | None


def run_in_fresh_worker(
    config: Config,
    spec: ModelSpec,
    remembered: LockEntry,
    work: Callable[[LoadedModel], Awaitable[T]],
    *,
    keep_cache: bool = True,
) -> WorkerRun[T]:
    """Load a model, let `work` use it, and end its worker.

    Args:
        config: limits and homes; the model need not be in it.
        spec: the model, or a variant of one in the registry.
        remembered: the lock entry that its worker should see.
        work: what to do with the model.
        keep_cache: whether to keep what the backend caches.

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
        return WorkerRun(result, lock.read()[spec.name], damage)


async def _run(config: Config, work: Callable[[LoadedModel], Awaitable[T]]) -> tuple[T, str | None]:
    async with Pool(config) as pool:
        result = await work(LoadedModel(pool, await pool.load(None)))
        return result, await pool.audited(None)
