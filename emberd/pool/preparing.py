"""Prepares models before their first request, so that no request waits for what is made only once.

A worker does it, as for a request: it compiles the graph into the cache, and embeds the probe texts
for `lock.json`. Then it ends. Commands do it at once; in a running server it has low priority, one
model after another, and makes way for every start that somebody waits for.
"""

import asyncio
import logging
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from emberd.aside import aside
from emberd.config.load import Config
from emberd.config.paths import Homes
from emberd.errors import ConfigError, EmberdError, WorkerStartError, from_code
from emberd.flock import LockedError
from emberd.models import compiled
from emberd.models.availability import find_here
from emberd.models.prepared import code_changed_s, in_hand, is_in_vain, is_prepared, kept_files
from emberd.pool.manager import Pool
from emberd.pool.process import Spawn, Worker, WorkerProcess, start_frame
from emberd.pool.status import space_changed
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.units import format_size
from emberd.worker import wire

AFTER_START_S = 5.0  # the first requests after a start have priority
LONGEST_S = 600.0  # also for a machine that has no time for low priority
END_S = 5.0
IN_HAND_S = 1.0  # until it is tried again, while a command prepares or removes models
LOW_PRIORITY = 10  # niceness: a tenth of a core that others want, see sched(7)

log = logging.getLogger("emberd.pool")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What preparing a model took, and what to remember about it."""

    seconds: float
    entry: LockEntry


def needs_preparing(spec: ModelSpec, homes: Homes, *, unasked: bool = False) -> bool:
    """Whether the files of a model are here, and its next start would have to compile them.

    `unasked`: not if what was compiled could not be stored the last time.
    """
    entry = LockFile(homes.state).read().get(spec.name)
    here = find_here(spec, homes.hub, entry)
    if here is None or (unasked and is_in_vain(spec, entry)):
        return False
    return not is_prepared(spec, here.folder, homes.cache, entry)


async def prepare(
    spec: ModelSpec, homes: Homes, *, niceness: int = 0, spawn: Spawn = WorkerProcess.spawn
) -> Prepared:
    """Do once what the first start of a model does; its files are here.

    Whatever ends this early, a cancellation too, ends the worker.

    Raises:
        EmberdError: the model cannot be loaded, or what was compiled cannot be stored.
        OSError: no process can be started, or the state folder cannot be written.
    """
    began_s = time.monotonic()
    lock = LockFile(homes.state)
    before = lock.read().get(spec.name)
    worker = await spawn(start_frame(spec, homes, asdict(before) if before else None))
    try:
        if niceness:
            with suppress(OSError):  # its threads, which it does not have yet, inherit it
                os.setpriority(os.PRIO_PROCESS, worker.pid, niceness)
        ready = await _ready(spec, worker)
        entry = LockEntry.from_dict(ready.lock)
        await aside(partial(lock.put, spec.name, entry))
        await aside(partial(_note_current, spec, homes, entry.now))
        seconds = time.monotonic() - began_s
        await worker.end(END_S)
    finally:
        worker.kill()
        await worker.death(END_S)
    if not entry.now.stored:
        raise ConfigError(
            f"What is compiled for {spec.name} cannot be stored in {homes.cache}.",
            hint="Check its permissions and the disk space; until then, each start compiles it.",
        )
    return Prepared(seconds, entry)


def _note_current(spec: ModelSpec, homes: Homes, entry: LockEntry) -> None:
    """Note that what was kept is what today's code would make; see `is_prepared`."""
    changed_s = code_changed_s()
    for path in kept_files(spec, homes.cache, entry):
        with suppress(OSError):  # deleted meanwhile
            if path.stat().st_mtime < changed_s:
                os.utime(path)


async def _ready(spec: ModelSpec, worker: Worker) -> wire.Ready:
    """Wait until the worker has loaded the model, or say why it has not."""
    outcome: asyncio.Future[wire.Ready | wire.StartFailed | None]
    outcome = asyncio.get_running_loop().create_future()

    def received(frame: wire.Received) -> None:
        if isinstance(frame.frame, wire.Ready | wire.StartFailed) and not outcome.done():
            outcome.set_result(frame.frame)

    def over() -> None:
        if not outcome.done():
            outcome.set_result(None)

    worker.listen(received, over)
    with suppress(TimeoutError):
        answer = await asyncio.wait_for(outcome, LONGEST_S)
        if isinstance(answer, wire.Ready):
            return answer
        if answer:
            raise from_code(answer.code, answer.message, answer.hint)
    raise WorkerStartError(
        f"{spec.name} was not loaded within {LONGEST_S:.0f} s, or its worker died while starting.",
        hint="Check the free memory and the disk, then try again.",
    )


def chosen(config: Config) -> list[ModelSpec]:
    """Return the models that are worth preparing unasked: the default, then others in use.

    These are pinned ones, those that somebody has pulled or loaded, and those that the config file
    describes, unless they were removed since. The rest of the registry may be on this machine for
    other programs.
    """
    default = config.catalog.get(config.settings.default)
    entries = LockFile(config.homes.state).read()

    def is_used(spec: ModelSpec) -> bool:
        entry = entries.get(spec.name)
        if entry:
            return not entry.is_removed
        return config.origins[f"models.{spec.name}"] != "built in"

    return sorted(
        (spec for spec in config.catalog if spec is default or spec.pinned or is_used(spec)),
        key=lambda spec: (spec is not default, not spec.pinned),
    )


def is_due(spec: ModelSpec, config: Config) -> bool:
    """Whether a server should prepare a model now; another process may have removed it."""
    return spec in chosen(config) and needs_preparing(spec, config.homes, unasked=True)


class Preparing:
    """A server's own: prepares what its configuration needs, and deletes what no entry uses."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._working: asyncio.Task[None] | None = None
        self._failed: dict[str, ModelSpec] = {}  # an entry is tried once

    def look(self, config: Config, *, after_s: float = 0.0) -> None:
        """Begin, in place of what is under way for an earlier configuration; returns at once."""
        before = self._working
        if before:
            before.cancel()
        self._working = None
        if config.settings.limits.prepare:
            self._working = asyncio.create_task(
                self._work(config, after_s, before), name="prepare models"
            )

    async def close(self) -> None:
        """End what is under way."""
        await _ended(self._working)

    async def _work(
        self, config: Config, after_s: float, before: "asyncio.Task[None] | None"
    ) -> None:
        await _ended(before)
        await asyncio.sleep(after_s)
        for spec in await aside(partial(chosen, config)):
            if self._failed.get(spec.name) == spec:
                continue
            try:
                while not await self._is_done(spec, config):
                    pass  # it made way for a start; that may even have been its own
            except (EmberdError, OSError, ValueError) as error:
                self._failed[spec.name] = spec
                reason = getattr(error, "message", None) or type(error).__name__
                log.warning("%s could not be prepared: %s", spec.name, reason)
        await aside(partial(delete_unused, config))

    async def _is_done(self, spec: ModelSpec, config: Config) -> bool:
        """Prepare a model, if it needs that and there is room; False if it made way for others."""
        pool = self._pool
        await pool.until(lambda: not pool.is_starting)
        if not await aside(partial(is_due, spec, config)):
            return True
        if await pool.room.needs_bytes(spec) > pool.room.free_bytes:
            return True  # a request would have others leave; this must not
        with ExitStack() as held:
            try:
                held.enter_context(in_hand(config.homes.state, 0.0))
            except LockedError:
                await asyncio.sleep(IN_HAND_S)
                return False
            if not await aside(partial(is_due, spec, config)):
                return True  # a command has prepared or removed it
            return await self._prepare(spec, config.homes)

    async def _prepare(self, spec: ModelSpec, homes: Homes) -> bool:
        """Prepare a model; False if it made way for a start."""
        pool = self._pool
        log.info("%s: preparing", spec.name)
        work = asyncio.create_task(prepare(spec, homes, niceness=LOW_PRIORITY))
        start = asyncio.create_task(pool.until(lambda: pool.is_starting))
        try:
            await asyncio.wait((work, start), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            prepared = work.result()
        finally:
            await _ended(work, start)
        log.info("%s: prepared in %.1f s", spec.name, prepared.seconds)
        if prepared.entry.changed_to:
            log.warning("%s", space_changed(spec.name, prepared.entry)["message"])
        return True


async def _ended(*tasks: "asyncio.Task[Any] | None") -> None:
    """End tasks; what they raised has been seen, or does not matter any more."""
    running = [task for task in tasks if task]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def delete_unused(config: Config) -> None:
    """Delete the compiled models that no entry uses any longer; see `compiled.unused`."""
    entries = LockFile(config.homes.state).read()
    models = [(spec, entries.get(spec.name)) for spec in config.catalog]
    with suppress(OSError):  # another process may do the same
        found = compiled.unused(config.homes.cache, models)
        freed = compiled.give_back(found)
        if freed:
            log.info("deleted %s of compiled models that are no longer used", format_size(freed))
