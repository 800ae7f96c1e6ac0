"""The ASGI app: the gate and the routes around one pool."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from emberd import __version__
from emberd.api import (
    admin,
    chunk,
    cohere,
    events,
    jobs,
    metrics,
    native,
    ollama,
    openai,
    openapi,
    pages,
    rerank,
    stores,
    tei,
    trust,
    web,
)
from emberd.api.access import Access, BearerTokens
from emberd.api.byte_budget import ByteBudget
from emberd.api.commands import Jobs, command_line
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
    """`answer` is the ASGI app; it ends the workers of `pool` when the server shuts down.

    Whoever shuts it down first closes the `watchers` and the `jobs`.
    """

    answer: ASGIApp
    routes: Sequence[Route]
    pool: Pool
    watchers: events.Watchers
    jobs: Jobs


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

    def everything() -> dict[str, Any]:
        return {
            "server": {
                "version": __version__,
                "instance": instance,
                "default": pool.default.name,
                "command": command_line(live.config.homes),
            },
            "models": pool.statuses(),
            "warnings": [*live.warnings(), *pool.warnings()],
            "samples": [],
            "requests": [],
            "jobs": running.rows(),
        }

    watchers = events.Watchers(everything, pool.statuses)
    running = Jobs(watchers.tell)
    routes: list[Route] = []
    routers = [
        native.create_router(pool, live),
        metrics.create_router(measured, pool, byte_budget),
        *(dialect.create_router(pool) for dialect in (openai, ollama, cohere, tei, rerank, chunk)),
        admin.create_router(live),
        pages.create_router(openapi.Document(routes)),
        web.create_router(),
        events.create_router(watchers),
        jobs.create_router(running, live),
        trust.create_router(running, live),
        stores.create_router(live),
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
    return App(gate, routes, pool, watchers, running)
