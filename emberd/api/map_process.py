"""Maps of stores, each in a process of its own: begun when asked for, ended when nobody asks.

So the server imports neither SQLite nor NumPy, a hanging database cannot harm it, and the memory
that a map takes is given back by its end.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from difflib import get_close_matches
from itertools import count
from typing import Any

import orjson

from emberd.config.load import Config
from emberd.errors import (
    EmberdError,
    NotAStoreError,
    QueueFullError,
    StoreError,
    UnavailableError,
    from_code,
)

MOST_MAPS = 2
IDLE_S = 120.0  # after which a map that nobody asks is ended
WAIT_S = 5.0  # for a store to be read; less than a shutdown waits
ANSWER_S = 60.0
MOST_WAITING = 8  # questions to a map; each answer may have megabytes
END_S = 1.0  # for processes that were killed

Given = tuple[dict[str, int], bytes]
"""What is said about an answer, and its bytes."""


class MapProcess:
    """One map. `state` is what it last told: a JSON object, see `emberd.atlas`."""

    def __init__(self, config: Config, name: str, over: Callable[["MapProcess"], None]) -> None:
        self.name = name
        self.settings = config.settings.stores[name]
        self.state: dict[str, Any] = {"map": secrets.token_hex(8), "store": name}
        self.state |= {"state": "reading", "progress": {"what": "starting", "done": 0, "total": 0}}
        self._error: EmberdError | None = None
        self._over = over
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Given]] = {}
        self._changed = asyncio.Event()
        self._stdin: asyncio.StreamWriter | None = None
        self._in_use = 0
        self._idle: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(config), name=f"map of {name}")

    @property
    def is_ready(self) -> bool:
        """Whether its points can be asked for."""
        return bool(self.state["state"] == "ready")

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Keep it from being ended meanwhile, and for a while afterwards."""
        if self._idle:
            self._idle.cancel()
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1
            if not self._in_use:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self.end)

    async def look(self, within_s: float) -> dict[str, Any]:
        """Return its state, once it is ready or that time has passed. Raises what went wrong."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not (self.is_ready or self._error):
                    self._changed.clear()
                    await self._changed.wait()
        if self._error:
            self._over(self)  # it was told: who asks again has the store read again
            raise self._error
        return self.state

    async def ask(self, what: bytes) -> Given:
        """Ask it something: the inside of a JSON object. Raises what went wrong."""
        if not self.is_ready or self._error:
            await self.look(WAIT_S)
        if not self.is_ready:
            raise UnavailableError(
                f"The store {self.name} is still being read.",
                hint="Ask again; POST /map says how far it is.",
            )
        if len(self._waiting) >= MOST_WAITING:
            raise QueueFullError(
                f"{MOST_WAITING} questions wait for the map of {self.name} already.",
                hint="Ask again in a moment.",
            )
        number = next(self._numbers)
        answer: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            assert self._stdin  # it is ready
            self._stdin.write(b'{"id":%d,%b}\n' % (number, what))
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            raise UnavailableError(
                f"The map of {self.name} has not answered within {ANSWER_S:.0f} s.",
                hint="Ask again; POST /map with `again` reads the store anew.",
            ) from None
        finally:
            self._waiting.pop(number, None)

    def end(self) -> None:
        """End its process, and be no map any more."""
        self._task.cancel()
        self._over(self)

    async def ended(self) -> None:
        """Return once its process has ended."""
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self, config: Config) -> None:
        try:
            await self._talk(config)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # what follows says so
        finally:
            was_ready = self.is_ready
            self._fail(self._has_ended())
            if was_ready:  # otherwise somebody follows how far it is, and is told when they ask
                self._over(self)

    async def _talk(self, config: Config) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "emberd.atlas", str(config.homes.config),
            config.settings.default, self.name, self.state["map"],
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stdin
        assert process.stdout
        self._stdin = process.stdin
        try:
            while line := await process.stdout.readline():
                header = orjson.loads(line)
                self._take(header, await process.stdout.readexactly(header.get("bytes", 0)))
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            self._fail(self._has_ended())
            await asyncio.shield(_over(process))

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        if "state" in header:
            self.state = header["state"]
        said = header.get("error")
        error = from_code(said["code"], said["message"], said["hint"]) if said else None
        if "id" not in header:
            self._error = error
        elif answer := self._waiting.get(header["id"]):
            if answer.done():
                return  # nobody waits for it any more
            if error:
                answer.set_exception(error)
            else:
                answer.set_result((header["about"], body))
        self._changed.set()

    def _has_ended(self) -> StoreError:
        return StoreError(
            f"The process that held the map of {self.name} has ended.",
            hint="Ask for the map again; the server's log may say why it ended.",
        )

    def _fail(self, error: EmberdError) -> None:
        self._error = self._error or error
        self._changed.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)


async def _over(process: asyncio.subprocess.Process) -> None:
    """Return once a killed process has ended: what it still had to say is thrown away.

    Until Python 3.12, `wait` returns only when its pipes have been read to their end.
    """
    assert process.stdout
    while await process.stdout.read(2**16):
        pass
    await process.wait()


class Maps:
    """The maps that are held; `config` returns the configuration in force."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._held: dict[str, MapProcess] = {}  # the one asked for last is last

    def open(self, name: str, *, again: bool = False) -> MapProcess:
        """Return the map of a configured store; begins one if there is none, or `again`.

        Raises:
            NotAStoreError: no store has that name.
        """
        config = self._config()
        if name not in config.settings.stores:
            near = get_close_matches(name, config.settings.stores, n=1)
            raise NotAStoreError(
                f"No store is called {name[:200]!r}.",
                hint=f"Did you mean {near[0]}?" if near else "The config file names them under"
                " `stores:`.",
            )  # fmt: skip
        held = self._held.pop(name, None)
        if held and (again or held.settings != config.settings.stores[name]):
            held.end()
            held = None
        self._held[name] = held = held or MapProcess(config, name, self._forget)
        while len(self._held) > MOST_MAPS:
            self._held.pop(next(iter(self._held))).end()
        return held

    def held(self, name: str) -> MapProcess:
        """Return the map of a store if there is one. Raises NotAStoreError."""
        held = self._held.get(name)
        if held and held.settings != self._config().settings.stores.get(name):
            held.end()  # the configuration has changed since
        if name not in self._held:
            raise NotAStoreError(
                f"No map of {name[:200]!r} is held.", hint="POST /map reads a store, and holds it."
            )
        return self._held[name]

    async def close(self) -> None:
        """End all of them."""
        held = [*self._held.values()]
        for each in held:
            each.end()
        with suppress(TimeoutError):  # a process that hangs in the kernel ends when it can
            async with asyncio.timeout(END_S):
                for each in held:
                    await each.ended()

    def _forget(self, ended: MapProcess) -> None:
        if self._held.get(ended.name) is ended:
            del self._held[ended.name]
