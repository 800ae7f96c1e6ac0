"""The configuration a running server uses, and how a changed file replaces it.

Runs in the server process. A file is validated as a whole, off the event loop. One that cannot be
read changes nothing, and `warnings` mentions it until it can be read again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from emberd.aside import aside
from emberd.config.difference import Change, differences, in_force
from emberd.config.load import Config
from emberd.config.watch import Snapshot, changes
from emberd.errors import ConfigError
from emberd.files import is_gone

LONGEST_S = 10.0  # a file that is still being written after this long is read as it is

log = logging.getLogger("emberd.config")


class LiveConfig:
    """`config` is in force. `read` reads all layers again: flag > environment > file > default."""

    def __init__(self, config: Config, read: Callable[[], Config]) -> None:
        self.config = config
        self._read = read
        self._seen = Snapshot.of(config.homes.config)
        self._had_file = self._seen.status is not None
        self._followers: list[Callable[[Config], None]] = []
        self._turn = asyncio.Lock()
        self._error: ConfigError | None = None
        self._needs_restart: list[str] = []

    def follow(self, apply: Callable[[Config], None]) -> None:
        """Call `apply` with each new configuration from now on; it must not fail."""
        self._followers.append(apply)

    async def preview(self) -> list[Change]:
        """Return what `reload` would change. Raises ConfigError."""
        return differences(self.config, await aside(self._read_settled))

    async def reload(self) -> list[Change]:
        """Read the file and apply all of it or nothing; return what changed.

        Changes that need a restart are in the list, but are not applied.

        Raises:
            ConfigError: the file is missing or invalid; `warnings` keeps the error too.
        """
        async with self._turn:
            try:
                read = await aside(self._read_settled)
            except ConfigError as error:
                if not self._error or error.message != self._error.message:
                    log.error("The config file was not loaded: %s", error.message)  # noqa: TRY400
                self._error = error
                raise
            if self._error:
                log.info("The config file is valid again.")
            self._error, self._had_file = None, not is_gone(read.homes.config)
            found = differences(self.config, read)
            self.config = in_force(self.config, read)
            for apply in self._followers:
                apply(self.config)
            self._note(found)
            return found

    def warnings(self) -> list[dict[str, str]]:
        """Return what is wrong with the file and the environment, as `/health` shows it."""
        found = [
            {"code": "environment", "message": warning, "hint": "Correct the name or unset it."}
            for warning in self.config.warnings
        ]
        if self._error:
            message = f"{self._error.message} The previous configuration stays in force."
            found.append({"code": "config", "message": message, "hint": self._error.hint or ""})
        if self._needs_restart:
            keys = ", ".join(self._needs_restart)
            message = f"The config file changed {keys}, which takes effect only after a restart."
            found.append({"code": "needs_restart", "message": message, "hint": "Restart emberd."})
        return found

    async def watch(self) -> None:
        """Reload whenever the file changes, until cancelled."""
        async for _ in changes(self.config.homes.config, self._seen):
            await self.try_reload()

    async def try_reload(self) -> None:
        """Reload where a failure can only be reported in the log and in `warnings`."""
        try:
            await self.reload()
        except ConfigError:
            pass  # noted by `reload`
        except Exception as error:  # noqa: BLE001 - a bug must not end the watching
            log.error("emberd failed to reload its config: %s", type(error).__name__)  # noqa: TRY400

    def _read_settled(self) -> Config:
        """Read all layers once the file has stopped changing, or has changed for too long."""
        file = self.config.homes.config
        until_s = time.monotonic() + LONGEST_S
        while True:
            seen = Snapshot.of(file)
            time.sleep(seen.patience_s(self._seen))
            if self._moves(seen, until_s):
                continue
            try:
                read = self._read_file()
            except ConfigError:
                if not self._moves(seen, until_s):
                    self._seen = seen
                    raise
            else:
                if not self._moves(seen, until_s):
                    self._seen = seen
                    return read

    def _moves(self, seen: Snapshot, until_s: float) -> bool:
        """Whether the file has changed since it was seen, and there is still time to wait."""
        return time.monotonic() < until_s and Snapshot.of(self.config.homes.config) != seen

    def _read_file(self) -> Config:
        """Read all layers. A file that has disappeared is an error, unless that changes nothing."""
        file = self.config.homes.config
        if not self._had_file or not is_gone(file):
            return self._read()
        with suppress(ConfigError):
            without = self._read()
            if not differences(self.config, without):
                return without
        raise ConfigError(
            f"The config file {file} is gone.",
            hint="Put it back. An empty file means that every setting has its default.",
        )

    def _note(self, found: list[Change]) -> None:
        taken = [change.key for change in found if change.effect != "needs_restart"]
        left = [change.key for change in found if change.effect == "needs_restart"]
        if taken:
            log.info("The config file was loaded; changed: %s", ", ".join(taken))
        if left and left != self._needs_restart:
            log.warning("Restart emberd to apply %s from the config file.", ", ".join(left))
        self._needs_restart = left
