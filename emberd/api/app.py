"""The ASGI app: the gate, the routes and the error handlers around one pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from emberd import __version__
from emberd.api import errors, native
from emberd.api.gate import Gate
from emberd.config.load import Config
from emberd.errors import EmberdError
from emberd.pool.manager import Pool


def create_app(config: Config) -> FastAPI:
    """Return the app; it ends its workers when the server shuts down."""
    pool = Pool(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(
        title="emberd",
        description="A local embedding server.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the pages would load scripts from elsewhere
        redoc_url=None,
    )
    warnings = [
        {"code": "environment", "message": warning, "hint": "Correct its name or unset it."}
        for warning in config.warnings
    ]
    app.state.pool = pool
    app.include_router(native.create_router(pool, config.settings.limits, warnings))
    app.add_exception_handler(EmberdError, errors.on_emberd_error)
    app.add_exception_handler(HTTPException, errors.on_http_error)
    app.add_middleware(
        Gate,
        allowed_hosts=(config.settings.server.host, *config.settings.server.allowed_hosts),
        allowed_origins=config.settings.server.allowed_origins,
    )
    return app
