"""Keeps what is known about the configured stores up to date, for the warnings of `/health`.

It runs in the server's event loop and starts a child process that reads the stamps. So the server
imports no SQLite, and a hanging database or a failing plugin cannot harm it.
"""

import asyncio
import logging
import sys
from contextlib import suppress

from emberd.config.load import Config

AFTER_START_S = 2.0  # the first requests after a start have priority
LONGEST_S = 60.0

log = logging.getLogger("emberd.stores")


class Stamps:
    """Reads the stamps at each `look`; `close` ends a reading that is under way."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[None] | None = None
        self._next: Config | None = None

    def look(self, config: Config, *, after_s: float = 0.0) -> None:
        """Start reading, or read once more after the reading under way; returns at once."""
        if self._looking and not self._looking.done():
            self._next = config
        elif config.settings.stores:
            self._looking = asyncio.create_task(self._look(config, after_s))

    async def close(self) -> None:
        """End a reading that is under way."""
        if self._looking:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self, config: Config, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while True:
            try:
                await _read(config)
            except (OSError, TimeoutError) as error:
                log.warning("The stores could not be checked: %s", type(error).__name__)
            if not self._next:
                return
            config, self._next = self._next, None


async def _read(config: Config) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "emberd.migrate.stamps",
        str(config.homes.config), config.settings.default,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LONGEST_S):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    for line in output.decode(errors="replace").splitlines():
        log.warning("A store cannot be checked. %s", line)
