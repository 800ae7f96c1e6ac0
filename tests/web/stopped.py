"""Processes that stand still while a page is looked at, so that what passes can be seen."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.serving import Server, wait_for


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Have a process do nothing meanwhile, so that nobody is answered."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def child(server: Server, word: str) -> psutil.Process:
    """Return the server's child process with that word in its command, once there is one."""

    def look() -> psutil.Process | None:
        return next((each for each in server.workers() if word in each.cmdline()), None)

    return wait_for(look)
