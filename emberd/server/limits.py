"""How many connections this process can hold, and what happens when no more can be accepted."""

import asyncio
import errno
import resource
import time
from contextlib import suppress
from typing import Any

ACCEPTED_AT_ONCE = 512  # connections, before any is handled; asyncio calls it backlog
OTHER_FILES = 128  # workers' pipes, logs, libraries, connections that linger
MANY_FILES = 8192
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # as in asyncio


def raise_file_limit() -> None:
    """Raise the soft limit on open files (256 on macOS) as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MANY_FILES) if hard != resource.RLIM_INFINITY else MANY_FILES
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections the soft limit on open files leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(files - ACCEPTED_AT_ONCE - OTHER_FILES, files // 4)


class EventLoopErrorLog:
    """The event loop's exception handler: one line every 10 s for connections not accepted.

    When it is out of file descriptors, asyncio reports each connection that it could not accept:
    up to the whole backlog, once a second. Everything else is logged each time, by its type alone:
    what asyncio would add may hold a text.
    """

    EVERY_S = 10.0

    def __init__(self, log: Any) -> None:  # noqa: ANN401 - any logger
        self._log = log
        self._next_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what happened."""
        del loop
        cause = context.get("exception")
        if isinstance(cause, OSError) and cause.errno in OUT_OF_RESOURCES:
            now_s = time.monotonic()
            if now_s < self._next_s:
                return
            self._next_s = now_s + self.EVERY_S
        self._log.error("%s (%s)", context["message"], type(cause).__name__)
