"""Run blocking work in a thread that neither the event loop nor the process's end waits for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises; it runs in a thread of its own.

    The end of the process does not wait for that thread, as it would for `asyncio.to_thread`: a
    file system that hangs would keep a server from ending. If cancelled, the thread continues.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(give: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if done.done() else give())

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is for the caller
            failure = error
            tell(lambda: done.set_exception(failure))
        else:
            tell(lambda: done.set_result(result))

    Thread(target=run, name="emberd-aside", daemon=True).start()
    return await done


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Start `work` as `aside` does; whoever waits for the future gets its result or error."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is for whoever waits
            future.set_exception(error)

    Thread(target=run, name="emberd-aside", daemon=True).start()
    return future
