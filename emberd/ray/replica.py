"""A replica: an actor with one model and its worker process, through the pool that serves alone.

Batching, packing, fingerprints and what happens when the worker dies are the pool's. Serve decides
how many replicas there are, so a replica's model stays loaded as long as the replica lives.
"""

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import replace

import ray

from emberd.aside import aside
from emberd.config.load import Config
from emberd.errors import (
    BackendError,
    BadVectorError,
    DeadlineError,
    EmberdError,
    UnavailableError,
    WorkerCrashedError,
    WorkerError,
)
from emberd.pool.manager import Pool
from emberd.pool.request import EmbedRequest
from emberd.ray.agreement import agree, note_refusal, note_unloaded
from emberd.ray.configuration import at_home
from emberd.ray.crossing import Refused, Sent
from emberd.registry.catalog import Catalog
from emberd.worker.wire import Ready

BLAMES_THE_REPLICA = (BackendError, UnavailableError, WorkerError)
BLAMES_THE_REQUEST = (BadVectorError, DeadlineError, WorkerCrashedError)  # though of these classes
REFUSES_AFTER_S = 1.0

log = logging.getLogger("emberd.ray")


class Replica:
    """One model of a configuration, on whichever node Serve puts it."""

    async def __init__(self, config: Config, model: str) -> None:  # type: ignore[misc] # awaited
        """Load the model. What raises here is the reason that `serve status` shows.

        Raises:
            EmberdError: it cannot be loaded here, or is not what the other replicas are.
        """
        takes = ray.get_runtime_context().get_assigned_resources()
        self._pool = Pool(_of_one(at_home(config), model, takes))
        self._agreed: Ready | None = None
        self._odd: EmberdError | None = None
        try:
            await self._pool.load(model)
            await self._check_same()
            await aside(lambda: note_refusal(None))
        except EmberdError as error:
            refused = Refused.of(error)
            await aside(lambda: note_refusal(refused))
            await self._pool.close()
            raise

    async def embed(self, request: EmbedRequest) -> Sent | Refused:
        """Return what `Pool.embed` does, or the error that it raises."""
        try:
            answer = await self._pool.embed(request)
            await self._check_same()
        except EmberdError as error:
            blames_replica = isinstance(error, BLAMES_THE_REPLICA)
            elsewhere = blames_replica and not isinstance(error, BLAMES_THE_REQUEST)
            if elsewhere:  # at once, it would be the least busy, and be asked again and again
                await asyncio.sleep(REFUSES_AFTER_S)
            return Refused.of(error, elsewhere=elsewhere)
        return Sent.of(answer)

    async def load(self) -> Refused | None:
        """Return once the model is loaded, or the error."""
        try:
            await self._pool.load(None)
            await self._check_same()
        except EmberdError as error:
            return Refused.of(error)
        return None

    async def unload(self) -> bool:
        """End the worker, whose memory is back then; return whether there was one."""
        await aside(note_unloaded)
        return bool(await self._pool.unload())

    def check_health(self) -> None:
        """Raise if Serve should replace this replica."""
        if self._odd:
            raise self._odd

    async def __del__(self) -> None:
        """End the worker."""
        if hasattr(self, "_pool"):
            await self._pool.close()

    async def _check_same(self) -> None:
        """Compare a worker that has just started with the other replicas.

        Raises:
            WorkerStartError: it gives other vectors. Serve then replaces this replica.
        """
        ready = self._pool.ready()
        if ready is None or ready is self._agreed:
            return
        try:
            await aside(lambda: agree(ready))
        except EmberdError as error:
            self._odd = error
            raise
        self._agreed = ready


def _of_one(config: Config, model: str, takes: Mapping[str, float]) -> Config:
    """Return a configuration with one model, no end but that of the replica, and what it takes.

    It has a worker for each GPU that Ray gives it, which is one, or none and then one worker with
    its cores. Beside a GPU, all cores tokenize: one alone would keep it waiting.
    """
    spec = replace(config.catalog.get(model), replicas="auto", idle_unload=None)
    limits = replace(config.settings.limits, idle_unload=math.inf)
    if not takes.get("GPU"):
        limits = replace(limits, threads=max(1, math.ceil(takes.get("CPU", 1))))
    settings = replace(config.settings, default=spec.name, limits=limits)
    return replace(config, settings=settings, catalog=Catalog([spec]))
