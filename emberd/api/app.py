"""The ASGI app: the gate and the routes around one pool."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from emberd.api import (
    admin,
    chunk,
    cohere,
    events,
    metrics,
    native,
    ollama,
    openai,
    openapi,
    pages,
    rerank,
    tei,
    web,
)
from emberd.api.access import Access, BearerTokens
from emberd.api.activity import Activity
from emberd.api.byte_budget import ByteBudget
from emberd.api.changes import Changes, Looks
from emberd.api.gate import Gate
from emberd.api.history import History
from emberd.api.page import Page
from emberd.api.routes import Route, Routes
from emberd.api.stamps import AFTER_START_S, Stamps
from emberd.config.live import LiveConfig
from emberd.config.load import Config
from emberd.pool.manager import Pool
from emberd.pool.memory import memory_bytes, release_free_memory
from emberd.pool.observer import Observer, Observers
from emberd.pool.preparing import AFTER_START_S as PREPARE_AFTER_S
from emberd.pool.preparing import Preparing
from emberd.pool.surface import PoolSurface
from emberd.running import Running


@dataclass(frozen=True, slots=True)
class App:
    """`answer` is the ASGI app; it ends the workers of `pool` when the server shuts down.

    Whoever shuts it down first closes the `watchers` and the `page`. `routes` loads all of them.
    """

    answer: ASGIApp
    routes: Callable[[], Sequence[Route]]
    pool: PoolSurface
    watchers: events.Watchers
    page: Page


def create_app(
    live: LiveConfig,
    tokens: BearerTokens,
    here: Running,
    pool_of: Callable[[Config, Observer], PoolSurface] = Pool,
) -> App:
    """Return the app; `here` says where the server listens, and which run of it this is.

    `pool_of` makes the pool that answers. Only one with workers of its own has them prepared.
    """
    config = live.config
    measured = metrics.Metrics()
    observers = Observers(measured)
    pool = pool_of(config, observers)
    byte_budget = ByteBudget(lambda: pool.limits.max_queued_bytes)
    stamps = Stamps()
    preparing = Preparing(pool) if isinstance(pool, Pool) else None
    live.follow(pool.apply)
    live.follow(stamps.look)
    if preparing:
        live.follow(preparing.look)
    live.follow(lambda _: release_free_memory())  # what the old configuration and its YAML took

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with pool:
            watching = asyncio.create_task(live.watch(), name="watch the config file")
            stamps.look(live.config, after_s=AFTER_START_S)
            if preparing:
                preparing.look(live.config, after_s=PREPARE_AFTER_S)
            yield
            watching.cancel()
            await stamps.close()
            if preparing:
                await preparing.close()

    def server() -> dict[str, Any]:
        from emberd.api.commands import command_line  # only who watches is told

        settings = live.config.settings
        return {
            "version": here.version,
            "instance": here.instance,
            "default": pool.default.name,
            "default_reranker": pool.find(settings.default_reranker).spec.name,
            "default_sparse": pool.find(settings.default_sparse).spec.name,
            "pid": here.pid,
            "address": here.address,
            "config": str(live.config.homes.config),
            "command": command_line(live.config.homes),
            "stores": [*settings.stores],
            "needs_token": tokens.required,
            "budget_bytes": pool.limits.memory_budget,
            "memory_bytes": memory_bytes(here.pid),
        }

    history, activity = History(), Activity()
    everything: Looks = {
        "server": server,
        "models": pool.statuses,
        "warnings": lambda: [*live.warnings(), *pool.warnings()],
        "samples": history.samples,
        "requests": activity.rows,
    }
    changes = Changes(pool, history, activity, everything, here.pid)
    page = Page(pool, live, changes)
    everything["jobs"] = page.jobs
    observers.add(changes)
    live.follow(lambda _: changes.look())
    has_page = config.settings.server.page

    def all_routes() -> Sequence[Route]:
        return [*routes, *page.routes()] if has_page else routes

    routers = [
        native.create_router(pool, live),
        metrics.create_router(measured, pool, byte_budget),
        *(dialect.create_router(pool) for dialect in (openai, ollama, cohere, tei, rerank, chunk)),
        admin.create_router(live, pool),
        pages.create_router(openapi.Document(all_routes)),
        web.create_front(has_page=has_page),
    ]
    if has_page:
        routers += [web.create_router(), events.create_router(changes.watchers)]
    routes = [route for router in routers for route in router.routes]
    gate = Gate(
        Routes(routes, lifespan, others=page.routes if has_page else None),
        access=Access(tokens, config.settings.server),
        metrics=measured,
        changes=changes,
        budget=byte_budget,
        instance=here.instance,
    )
    return App(gate, all_routes, pool, changes.watchers, page)
