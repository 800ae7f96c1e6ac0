"""Which models are alive: the pool takes requests, finds room, and ends workers.

Runs in the server's event loop and never blocks it. The command line uses the same pool when no
server runs.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from emberd.aside import aside
from emberd.config.load import Config
from emberd.config.settings import LimitsSettings
from emberd.errors import (
    BadOptionError,
    DeadlineError,
    NoRoomError,
    NoTextsError,
    QueueFullError,
    ShuttingDownError,
    TooLargeError,
    UnknownModelError,
)
from emberd.files import size_of
from emberd.models.availability import find_here
from emberd.pool.eviction import choose_evictions
from emberd.pool.job import Answer, Form, Job
from emberd.pool.model import Model, Surroundings, change_warning
from emberd.pool.observer import NOBODY, Observer
from emberd.registry.spec import InputType, ModelSpec
from emberd.spaces import stores
from emberd.spaces.lock import LockEntry, LockFile
from emberd.units import format_size

BUSY_PATIENCE_S = 2.0  # how long a start waits for a busy model to fall idle before one is drained
WORKER_BASE_BYTES = 120 * 2**20  # interpreter, libraries and tokenizer of a worker
UNKNOWN_WEIGHTS_BYTES = 200 * 2**20  # for a model whose files are not here yet

log = logging.getLogger("emberd.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """What a caller may ask; nothing in it changes what other callers see."""

    texts: Sequence[str]
    model: str | None = None
    input_type: InputType | None = None
    dimensions: int | None = None
    truncate: bool = True
    encoding: Form = "json"
    normalize: bool | None = None  # None: as the registry says
    fingerprint: str | None = None
    special_tokens: bool = True  # among those of the encoding `tokens`
    token_ids: bool = False  # each text is written as ids; see `wire.Embed`


class Pool:
    """All models of a configuration. Ends its workers when it is closed."""

    def __init__(self, config: Config, observer: Observer = NOBODY) -> None:
        self._homes = config.homes
        self._lock = LockFile(config.homes.state)
        self._stores = stores.StoresFile(config.homes.state)
        self._room = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closing = False
        self._without_prompt: set[str] = set()  # models of which that was said
        self._around = Surroundings(
            homes=config.homes,
            lock=self._lock,
            idle_unload_s=lambda: self._limits.idle_unload,
            make_room=self._make_room,
            changed=self._changed.set,
            observer=observer,
        )
        self._models: dict[str, Model] = {}
        self._retired: list[Model] = []  # of an earlier configuration, not gone yet
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Go on with another configuration; only models whose entry changed are touched.

        Who was let in before is answered by the model that was there then; who asks from now on
        gets the new entry, the new default and the new limits.
        """
        before, self._models = self._models, {}
        self._catalog, self._limits = config.catalog, config.settings.limits
        self.default = self._catalog.get(config.settings.default)
        self._served_by = {
            name: self._entry_called(store.model) if store.model else None
            for name, store in config.settings.stores.items()
        }
        for spec in self._catalog:
            model = before.get(spec.name)
            if model and model.spec.runs_as(spec):
                model.adopt(spec)
                del before[spec.name]
            else:
                model = Model(spec, self._around)
            self._models[spec.name] = model
        for model in before.values():
            if model.alive:
                model.retire("reload")
                self._retired.append(model)
        self._shrink()
        self._changed.set()

    @property
    def limits(self) -> LimitsSettings:
        """The limits in force now; who keeps them misses the next `apply`."""
        return self._limits

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- what callers ask -------------------------------------------------------------------

    async def embed(self, request: EmbedRequest) -> Answer:
        """Embed texts with one model, starting it when it is cold.

        Raises:
            UnknownModelError: no model is called so.
            RequestError: the request cannot be served by this model.
            UnavailableError: not now; the queue is full, the deadline passed, no room, no source.
            BackendError: the model cannot be loaded, or gave no vector.
            WorkerCrashedError: its worker died twice on this request.
        """
        model = self._model(request.model)
        job = self._admit(model.spec, request)
        model.submit(job)
        try:
            async with asyncio.timeout(self._limits.request_timeout):
                return await job.done
        except TimeoutError:
            raise self._too_late(model) from None
        finally:
            if not job.done.done() or job.done.cancelled():
                model.abandon(job)

    async def load(self, name: str | None) -> dict[str, Any]:
        """Return the model's row once it is ready."""
        model = self._model(name)
        try:
            async with asyncio.timeout(self._limits.request_timeout):
                await model.load()
        except TimeoutError:
            raise self._too_late(model) from None
        return model.row()

    async def unload(self, name: str | None = None) -> list[str]:
        """Unload one model or all; return the names that were loaded, once their memory is back."""
        wanted = self._model(name).spec.name if name is not None else None
        models = [m for m in self._everyone() if wanted in (None, m.spec.name)]
        was_loaded = await asyncio.gather(*(model.unload("asked") for model in models))
        names = [model.spec.name for model, was in zip(models, was_loaded, strict=True) if was]
        return list(dict.fromkeys(names))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every entry of the registry."""
        return [model.row() for model in self._models.values()]

    def row(self, name: str | None = None) -> dict[str, Any]:
        """Return one model's row."""
        return self._models[self._catalog.get(name).name if name else self.default.name].row()

    def warnings(self) -> list[dict[str, str]]:
        """Return models that changed unaccepted or were damaged, and stores that fit no more."""
        lock = self._lock.read()
        changed = [
            change_warning(name, entry)
            for name, entry in lock.items()
            if entry.changed_to and name in self._models
        ]
        unfit = stores.warnings(self._stores.read(), self._served_by, self.default, lock)
        damaged = [model.damage for model in self._models.values() if model.damage]
        return [*changed, *damaged, *unfit]

    def spec(self, name: str | None = None) -> ModelSpec:
        """Return what the registry says about one model; raises `UnknownModelError`."""
        return self._catalog.get(name) if name else self.default

    def queued_texts(self) -> dict[str, int]:
        """Return how many texts without a vector each model has that somebody waits for."""
        busy = (model for model in self._models.values() if model.busy)
        return {model.spec.name: model.queued_texts for model in busy}

    def check_open(self) -> None:
        """Raise `ShuttingDownError` once the pool takes no more."""
        if self._closing:
            raise shutting_down()

    def states(self) -> list[dict[str, str]]:
        """Return name and state of every entry; cheap."""
        return [{"name": model.spec.name, "state": model.state} for model in self._models.values()]

    async def drain(self, within_s: float) -> None:
        """Take no more, refuse who waits for a worker, and who is not answered in time."""
        self._closing = True
        for model in self._everyone():
            model.refuse_waiting(shutting_down())
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(model.busy for model in self._everyone()):
                    self._changed.clear()
                    await self._changed.wait()
        for model in self._everyone():
            model.refuse_all(shutting_down())

    async def close(self) -> None:
        """Refuse who is still there and end all workers."""
        await self.drain(0)
        await asyncio.gather(*(model.unload("shutdown") for model in self._everyone()))

    # -- inside -----------------------------------------------------------------------------

    def _entry_called(self, name: str) -> str:
        """Return the name of the entry that is called so; the same name where there is none."""
        try:
            return self._catalog.get(name).name
        except UnknownModelError:
            return name

    def _everyone(self) -> list[Model]:
        """Return all models, those that leave for good included."""
        self._retired = [model for model in self._retired if model.alive]
        return [*self._models.values(), *self._retired]

    def _shrink(self) -> None:
        """Make models leave that limits which were lowered have no room for."""
        decision = choose_evictions(
            [m.as_resident() for m in self._models.values() if m.has_room],
            incoming_bytes=None,
            budget_bytes=self._limits.memory_budget,
            max_loaded=self._limits.max_loaded,
            drain_busy=True,
        )
        for name in decision.leave:
            self._models[name].leave("lru")

    def _model(self, name: str | None) -> Model:
        self.check_open()
        return self._models[self._catalog.get(name).name if name else self.default.name]

    def _admit(self, spec: ModelSpec, request: EmbedRequest) -> Job:
        count = len(request.texts)
        if not count:
            raise NoTextsError("No texts provided", hint="Send at least one text.")
        if count > self._limits.max_texts:
            raise TooLargeError(
                f"{count} texts are more than the {self._limits.max_texts} of one request.",
                hint="Send them in several requests, or raise limits.max_texts.",
            )
        dimensions = request.dimensions if request.dimensions is not None else spec.dimensions
        offered = (spec.dimensions, *spec.matryoshka)
        if dimensions not in offered:
            raise BadOptionError(
                f"{spec.name} has no vectors of {dimensions} dimensions.",
                hint=f"It offers {', '.join(map(str, offered))}.",
                field="dimensions",
            )
        queued = sum(model.queued_texts for model in self._everyone())
        if queued and queued + count > self._limits.max_queued_texts:
            raise QueueFullError(
                f"{queued} texts are waiting already.",
                hint="Ask again in a moment, or raise limits.max_queued_texts.",
            )
        prompt = spec.prompts.get(request.input_type, "") if request.input_type else ""
        if request.input_type == "query" and not prompt and spec.name not in self._without_prompt:
            self._without_prompt.add(spec.name)
            log.warning(
                "%s has no query prompt; texts of input_type query are embedded as they are."
                " If it was trained with one, state it in models.%s.prompts.",
                spec.name, spec.name,
            )  # fmt: skip
        return Job(
            texts=request.texts,
            prompt=prompt,
            truncate=request.truncate,
            dimensions=dimensions,
            encoding=request.encoding,
            normalize=request.normalize,
            expected_fingerprint=request.fingerprint,
            special_tokens=request.special_tokens,
            token_ids=request.token_ids,
        )

    def _too_late(self, model: Model) -> NoRoomError | DeadlineError:
        limit = f"{self._limits.request_timeout:g} s"
        if model.state == "starting" and not model.has_room:
            return NoRoomError(
                f"The other models left no room for {model.spec.name} within {limit}.",
                hint="Raise limits.max_loaded or limits.memory_budget, or unload a model.",
            )
        return DeadlineError(
            f"{model.spec.name} did not answer within {limit}; it is {model.state}.",
            hint="Ask again; a download or start under way goes on. See `emberd ps`.",
        )

    async def _make_room(self, model: Model) -> bool:
        """Wait until `model` fits the limits, making others leave; first come, first served.

        False when nobody wants it any more.
        """
        needs_bytes = model.known_peak_bytes()
        if not 0 < needs_bytes <= self._limits.memory_budget:
            # A peak over the budget was somebody's odd request: such a model runs alone.
            before = self._lock.read().get(model.spec.name)
            estimate = await aside(partial(estimate_bytes, model.spec, self._homes.hub, before))
            needs_bytes = max(estimate, min(needs_bytes, self._limits.memory_budget))
        if needs_bytes > self._limits.memory_budget:
            raise NoRoomError(
                f"{model.spec.name} needs about {format_size(needs_bytes)} and"
                f" limits.memory_budget is {format_size(self._limits.memory_budget)}.",
                hint="Raise limits.memory_budget.",
            )
        async with self._room:
            began_s = time.monotonic()
            while model.wanted:
                self._changed.clear()
                waited_s = time.monotonic() - began_s
                decision = choose_evictions(
                    [m.as_resident() for m in self._everyone() if m.has_room],
                    incoming_bytes=needs_bytes,
                    budget_bytes=self._limits.memory_budget,
                    max_loaded=self._limits.max_loaded,
                    drain_busy=waited_s >= BUSY_PATIENCE_S,
                )
                if decision.fits:
                    model.has_room = True
                    return True
                for name in decision.leave:
                    self._models[name].leave("lru")
                patience_s = BUSY_PATIENCE_S - waited_s
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._changed.wait(), patience_s if patience_s > 0 else None
                    )
        return False


def shutting_down() -> ShuttingDownError:
    """Return the error for who asks too late."""
    return ShuttingDownError("The server is shutting down.", hint="Ask again in a moment.")


def estimate_bytes(spec: ModelSpec, hub: Path, before: LockEntry | None) -> int:
    """Guess the memory of a model that never ran here, from the size of its weights."""
    here = find_here(spec, hub, before)
    if not here:
        return WORKER_BASE_BYTES + UNKNOWN_WEIGHTS_BYTES
    return WORKER_BASE_BYTES + sum(map(size_of, here.folder.glob("*.safetensors")))
