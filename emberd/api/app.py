"""The ASGI app: the gate and the routes around one pool."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from emberd.api import (
    admin,
    chunk,
    cohere,
    metrics,
    native,
    ollama,
    openai,
    openapi,
    pages,
    rerank,
    tei,
)
from emberd.api.access import Access, BearerTokens
from emberd.api.byte_budget import ByteBudget
from emberd.api.gate import Gate
from emberd.api.routes import Route, Routes
from emberd.api.stamps import AFTER_START_S, Stamps
from emberd.config.live import LiveConfig
from emberd.pool.manager import Pool
from emberd.pool.memory import release_free_memory
from emberd.pool.preparing import AFTER_START_S as PREPARE_AFTER_S
from emberd.pool.preparing import Preparing


@dataclass(frozen=True, slots=True)
class App:
    """`answer` is the ASGI app; it ends the workers of `pool` when the server shuts down."""

    answer: ASGIApp
    routes: Sequence[Route]
    pool: Pool


def create_app(live: LiveConfig, tokens: BearerTokens, instance: str) -> App:
    """Return the app.

    `instance` is any string unique to this run of the server.
    """
    config = live.config
    measured = metrics.Metrics()
    pool = Pool(config, measured)
    byte_budget = ByteBudget(lambda: pool.limits.max_queued_bytes)
    stamps = Stamps()
    preparing = Preparing(pool)
    live.follow(pool.apply)
    live.follow(stamps.look)
    live.follow(preparing.look)
    live.follow(lambda _: release_free_memory())  # what the old configuration and its YAML took

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with pool:
            watching = asyncio.create_task(live.watch(), name="watch the config file")
            stamps.look(live.config, after_s=AFTER_START_S)
            preparing.look(live.config, after_s=PREPARE_AFTER_S)
            yield
            watching.cancel()
            await stamps.close()
            await preparing.close()

    routes: list[Route] = []
    routers = [
        native.create_router(pool, live),
        metrics.create_router(measured, pool, byte_budget),
        *(dialect.create_router(pool) for dialect in (openai, ollama, cohere, tei, rerank, chunk)),
        admin.create_router(live),
        pages.create_router(pool, openapi.Document(routes)),
    ]
    for router in routers:
        routes.extend(router.routes)
    gate = Gate(
        Routes(routes, lifespan),
        access=Access(tokens, config.settings.server),
        metrics=measured,
        budget=byte_budget,
        instance=instance,
    )
    return App(gate, routes, pool)
