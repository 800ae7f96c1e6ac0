"""The routes that only people who look at the server need, and the processes behind them.

They are loaded once somebody asks for one: they would take a twentieth of every start.
"""

import asyncio
from collections.abc import Sequence

from emberd.api.changes import Changes
from emberd.api.routes import Route
from emberd.config.live import LiveConfig
from emberd.errors import ShuttingDownError
from emberd.pool.surface import PoolSurface


class Page:
    """Jobs, maps, stores and models' trust; `changes` are told to who watches."""

    def __init__(self, pool: PoolSurface, live: LiveConfig, changes: Changes) -> None:
        self._pool, self._live, self._changes = pool, live, changes
        self._loaded: _Loaded | None = None
        self._closing = False

    def routes(self) -> Sequence[Route]:
        """Load the routes, or return those loaded before.

        Raises:
            ShuttingDownError: the server is about to end, and none are loaded.
        """
        if self._loaded is None:
            if self._closing:
                hint = "Try again once it is up."
                raise ShuttingDownError("The server is shutting down.", hint=hint)
            self._loaded = _Loaded(self._pool, self._live, self._changes)
        return self._loaded.routes

    def jobs(self) -> Sequence[object]:
        """Return the last jobs, newest first."""
        return self._loaded.jobs.rows() if self._loaded else ()

    async def close(self) -> None:
        """End the processes: the server ends."""
        self._closing = True
        if self._loaded:
            await asyncio.gather(self._loaded.jobs.close(), self._loaded.maps.close())


class _Loaded:
    def __init__(self, pool: PoolSurface, live: LiveConfig, changes: Changes) -> None:
        from emberd.api import jobs, map, stores, trust
        from emberd.api.commands import Jobs
        from emberd.api.map_process import Maps

        self.jobs = Jobs(changes.watchers.tell, ended=changes.look)
        self.maps = Maps(lambda: live.config)
        routers = (
            map.create_router(pool, live, self.maps),
            jobs.create_router(self.jobs, live),
            trust.create_router(self.jobs, live),
            stores.create_router(live),
        )
        self.routes = [route for router in routers for route in router.routes]
