"""The ASGI app: the gate, the routes and the error handlers around one pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from emberd import __version__
from emberd.api import admin, cohere, errors, metrics, native, ollama, openai, openapi, pages, tei
from emberd.api.access import Access, BearerTokens
from emberd.api.byte_budget import ByteBudget
from emberd.api.gate import Gate
from emberd.api.paths import Paths
from emberd.api.stamps import AFTER_START_S, Stamps
from emberd.config.live import LiveConfig
from emberd.errors import EmberdError
from emberd.pool.manager import Pool
from emberd.pool.memory import release_free_memory
from emberd.pool.preparing import AFTER_START_S as PREPARE_AFTER_S
from emberd.pool.preparing import Preparing


def create_app(live: LiveConfig, tokens: BearerTokens, instance: str) -> FastAPI:
    """Return the app, which ends its workers when the server shuts down.

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
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            watching = asyncio.create_task(live.watch(), name="watch the config file")
            stamps.look(live.config, after_s=AFTER_START_S)
            preparing.look(live.config, after_s=PREPARE_AFTER_S)
            yield
            watching.cancel()
            await stamps.close()
            await preparing.close()

    app = FastAPI(
        title="emberd",
        description="A local embedding server.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's would load scripts from a CDN; see pages.py
        redoc_url=None,
        redirect_slashes=False,  # see Paths
        telemetry={"tracing": False, "metrics": False, "logs": False},  # whatever OTEL_* says
    )
    app.state.pool = pool
    routers = [
        native.create_router(pool, live),
        metrics.create_router(measured, pool, byte_budget),
        *(dialect.create_router(pool) for dialect in (openai, ollama, cohere, tei)),
        admin.create_router(live),
        pages.create_router(pool, app),
    ]
    for router in routers:  # `include_router` would match each request twice
        app.router.routes.extend(router.routes)
    openapi.complete(app)
    app.add_exception_handler(EmberdError, errors.on_emberd_error)
    app.add_exception_handler(HTTPException, errors.on_http_error)
    app.add_middleware(Paths)
    access = Access(tokens, config.settings.server)
    app.add_middleware(Gate, access=access, metrics=measured, budget=byte_budget, instance=instance)
    return app
