"""Several servers that are asked as if they were one; `Work` says who gets what."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

import httpx2

from emberd.aside import in_thread
from emberd.client.address import Address
from emberd.client.connection import AsyncConnection, Connection
from emberd.client.requests import Request
from emberd.client.work import Part, Server, Spaces, Work

CONNECT_S = 5.0
ANSWER_S = 150.0  # without a `timeout`: longer than a server's own deadline usually is

T = TypeVar("T")


class Several:
    """Servers at these addresses; safe to share between threads, as `Connection` is."""

    def __init__(self, addresses: Sequence[Address], timeout: float | None) -> None:
        self.address = ", ".join(map(str, addresses))
        self._connections = [Connection(each, _timeout(timeout)) for each in addresses]
        self._servers = [Server(each) for each in addresses]
        self._spaces: Spaces = {}
        self._lock = threading.Lock()

    def send(self, request: Request[T]) -> T:
        """Return the answer, of whichever servers. Raises EmberdError."""
        if request.is_for_all:
            first, *_ = [each.send(request) for each in self._connections]
            return first
        work = Work(request, self._servers, self._spaces)
        running: dict[Future[T], tuple[int, Part[T]]] = {}
        try:
            while not work.is_done:
                with self._lock:
                    turns = list(work.turns(time.monotonic()))
                for at, part in turns:
                    sent = in_thread(partial(self._connections[at].send, part.request))
                    running[sent] = (at, part)
                pause_s = work.wait_s(time.monotonic())
                if not running:
                    time.sleep(pause_s)
                for each in wait(running, pause_s, FIRST_COMPLETED).done:
                    with self._lock:
                        work.ended(*running.pop(each), _outcome(each), time.monotonic())
            return work.answer()
        finally:
            with self._lock:
                work.abandon(running.values())

    def close(self) -> None:
        """Close all connections."""
        for each in self._connections:
            each.close()


class AsyncSeveral:
    """`Several` for asyncio."""

    def __init__(self, addresses: Sequence[Address], timeout: float | None) -> None:
        self.address = ", ".join(map(str, addresses))
        self._connections = [AsyncConnection(each, _timeout(timeout)) for each in addresses]
        self._servers = [Server(each) for each in addresses]
        self._spaces: Spaces = {}

    async def send(self, request: Request[T]) -> T:
        """See `Several.send`."""
        if request.is_for_all:
            first, *_ = [await each.send(request) for each in self._connections]
            return first
        work = Work(request, self._servers, self._spaces)
        running: dict[asyncio.Task[T], tuple[int, Part[T]]] = {}
        try:
            while not work.is_done:
                for at, part in work.turns(time.monotonic()):
                    sent = asyncio.create_task(self._connections[at].send(part.request))
                    running[sent] = (at, part)
                pause_s = work.wait_s(time.monotonic())
                if not running:
                    await asyncio.sleep(pause_s)
                    continue
                done, _ = await asyncio.wait(
                    running, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED
                )
                for each in done:
                    work.ended(*running.pop(each), _outcome(each), time.monotonic())
            return work.answer()
        finally:
            work.abandon(running.values())
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def close(self) -> None:
        """Close all connections."""
        for each in self._connections:
            await each.close()


def _timeout(timeout: float | None) -> httpx2.Timeout:
    answer_s = ANSWER_S if timeout is None else timeout
    return httpx2.Timeout(answer_s, connect=min(CONNECT_S, answer_s))


def _outcome(ended: Any) -> Any:  # noqa: ANN401 - a future or a task, of whatever it gives
    """Return what came, or the error."""
    error = ended.exception()
    return ended.result() if error is None else error
