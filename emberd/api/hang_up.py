"""Whether a request's client has hung up, which the connection knows first.

ASGI tells it only to those who wait for a message, which takes a task beside each request. So the
connection puts a `HangUp` into the ASGI state, and calls whoever is at work for the client.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Scope

KEY = "emberd_hang_up"  # in a request's state

T = TypeVar("T")


class HangUp:
    """The end of one connection; `cut` is how the server itself brings it about."""

    def __init__(self, cut: Callable[[], None] = lambda: None) -> None:
        self.cut = cut
        self._happened = False
        self._working: asyncio.Task[Any] | None = None

    def happen(self) -> None:
        """Say that the client has hung up."""
        self._happened = True
        if self._working:
            self._working.cancel()

    async def ends(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; cancel it and raise ClientDisconnect when the client hangs up."""
        if self._happened:
            work.close()
            raise ClientDisconnect
        task = self._working = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if task and self._is_why(task):
                raise ClientDisconnect from None
            raise
        finally:
            self._working = None

    def _is_why(self, task: asyncio.Task[Any]) -> bool:
        """Whether nothing else has cancelled the task."""
        return self._happened and not task.uncancel()


def hang_up_of(scope: Scope) -> HangUp:
    """Return what tells of the client's end; of another server's connection, nothing does."""
    hang_up: HangUp = scope.get("state", {}).get(KEY) or HangUp()
    return hang_up
