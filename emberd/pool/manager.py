"""The pool: takes requests, finds each one's model, and loads and unloads models.

Runs in the server's event loop and never blocks it. The command line uses the same pool when no
server runs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from typing import Self, TypeVar

from emberd.config.load import Config
from emberd.config.settings import LimitsSettings
from emberd.dtypes import has_step
from emberd.errors import (
    DeadlineError,
    NoRoomError,
    QueueFullError,
    ShuttingDownError,
    UnknownModelError,
)
from emberd.pool.checking import check_late, checked_count, checked_size
from emberd.pool.context import PoolContext
from emberd.pool.describe import status_of
from emberd.pool.job import Answer, Job
from emberd.pool.model import Model
from emberd.pool.observer import NullObserver, Observer
from emberd.pool.process import Spawn, WorkerProcess
from emberd.pool.request import EmbedRequest
from emberd.pool.room import Room
from emberd.pool.serving import check_served
from emberd.pool.states import State
from emberd.pool.status import ModelStatus, space_changed
from emberd.pool.steps import steps_of
from emberd.pool.watchdog import Patience
from emberd.registry.catalog import Named
from emberd.registry.spec import KINDS, AskedRole, InputType, Kind, ModelSpec
from emberd.spaces import stores
from emberd.spaces.lock import LockFile
from emberd.worker.wire import Ready

T = TypeVar("T")
QUEUED_TEXTS = attrgetter("backlog.queued_texts")

log = logging.getLogger("emberd.pool")


class Pool:
    """All models of a configuration. Ends its workers when it is closed."""

    def __init__(
        self,
        config: Config,
        observer: Observer | None = None,
        *,
        spawn: Spawn = WorkerProcess.spawn,
        patience: Patience | None = None,
    ) -> None:
        patience = patience or Patience()
        homes = config.homes
        self._lock = LockFile(homes.state)
        self._stores = stores.StoresFile(homes.state)
        self._changed = asyncio.Event()
        self._closing = self._leaving = False
        self._without_prompt: set[str] = set()  # models that were warned about
        self.room = Room(
            config.settings.limits,
            hub=homes.hub,
            lock=self._lock,
            changed=self._changed,
            busy_s=patience.busy_s,
        )
        self._context = PoolContext(
            homes=homes,
            lock=self._lock,
            room=self.room,
            observer=observer or NullObserver(),
            spawn=spawn,
            patience=patience,
            idle_unload_s=lambda: self._limits.idle_unload,
            threads=lambda: self._limits.threads,
            changed=self._changed.set,
            freed=self._freed,
            vectors_bytes=config.settings.cache.vectors,
        )
        self._models: dict[str, Model] = {}
        self._retired: list[Model] = []  # of an earlier configuration, not gone yet
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Switch to another configuration; only models whose entry changed are touched.

        Requests that were already admitted are answered by the model as it was then; later ones
        get the new entry, the new default and the new limits.
        """
        before, self._models = self._models, {}
        self._catalog, self._limits = config.catalog, config.settings.limits
        self.default = self._catalog.get(config.settings.default)
        self._defaults: Mapping[Kind, str] = {
            "embed": self.default.name,
            "rerank": config.settings.default_reranker,
            "sparse": config.settings.default_sparse,
        }
        self._served_by = {
            name: self._entry_called(store.model) if store.model else None
            for name, store in config.settings.stores.items()
        }
        self._chunks = {name: store.chunk for name, store in config.settings.stores.items()}
        for entry in self._catalog:
            spec = replace(entry, replicas=entry.replicas or self._limits.replicas)
            model = before.get(spec.name)
            if model and model.spec.runs_as(spec):
                model.adopt(spec)
                del before[spec.name]
            else:
                model = Model(spec, self._context)
            self._models[spec.name] = model
        for model in before.values():
            if model.alive:
                model.retire("reload")
                self._retired.append(model)
        self.room.apply(self._limits)
        self._freed()

    @property
    def limits(self) -> LimitsSettings:
        """The limits in force now. Do not keep them: `apply` replaces them."""
        return self._limits

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- what callers ask -------------------------------------------------------------------

    async def embed(self, request: EmbedRequest) -> Answer:
        """Embed texts with one model, starting it when it is cold.

        Raises:
            UnknownModelError: no model has that name.
            WrongKindError: it is not of the kind that the request needs.
            BadOptionError: its name states another role than `input_type`.
            RequestError: the request cannot be served by this model.
            UnavailableError: the queue is full, the deadline passed, or there is no room or source.
            BackendError: the model cannot be loaded, or gave no vector.
            WorkerCrashedError: its worker died twice on this request.
        """
        self.check_open()
        named = self.find(request.model, request.input_type, request.kinds)
        model = self._models[named.spec.name]
        job = self._admit(named, request)
        if any(map(has_step, request.dtypes)):
            job.step = (await self._in_time(model, steps_of(model)))[str(job.dimensions)]
        model.submit(job)
        deadline = asyncio.get_running_loop().call_later(
            self._limits.request_timeout, lambda: job.fail(self._too_late(model))
        )
        try:
            return await job.done
        except BaseException:
            model.abandon(job)
            raise
        finally:
            deadline.cancel()

    async def load(self, name: str | None) -> ModelStatus:
        """Return the model's status once it is ready."""
        model = self._model(name)
        await self._in_time(model, model.load())
        return self._status(model)

    async def audited(self, name: str | None) -> str | None:
        """Wait until a loaded model has checked what it computes with; return what was damaged."""
        return await self._model(name).audited()

    def ready(self, name: str | None = None) -> Ready | None:
        """Return what a loaded model's worker said when it became ready; None if there is none."""
        lanes = self._models[self.spec(name).name].backlog.lanes
        return lanes[0].ready if lanes else None

    async def unload(self, name: str | None = None) -> list[str]:
        """Unload one model or all; return the names that were loaded, once their memory is back."""
        wanted = self._model(name).spec.name if name is not None else None
        models = [m for m in self._everyone() if wanted in (None, m.spec.name)]
        was_loaded = await asyncio.gather(*(model.unload("asked") for model in models))
        names = [model.spec.name for model, was in zip(models, was_loaded, strict=True) if was]
        return list(dict.fromkeys(names))

    def pin(self, name: str | None, pinned: bool) -> ModelStatus:
        """Have a model stay loaded once it is, or no longer, until the server ends."""
        self._model(name).pin(pinned)
        return self.status(name)

    def statuses(self) -> list[ModelStatus]:
        """Return the status of every entry of the registry."""
        return [self._status(model) for model in self._models.values()]

    def status(self, name: str | None = None, *, pulled: bool | None = None) -> ModelStatus:
        """Return one model's status; see `status_of`. Raises `UnknownModelError`."""
        return self._status(self._models[self.spec(name).name], pulled)

    def warnings(self) -> list[dict[str, str]]:
        """Return models that changed or were damaged, and stores that no longer fit."""
        lock, known = self._lock.read(), self._stores.read()
        changed = [
            space_changed(name, entry)
            for name, entry in lock.items()
            if entry.changed_to and name in self._models
        ]
        unfit = stores.warnings(known, self._served_by, self.default, lock)
        unfit += stores.chunk_warnings(known, self._chunks)
        damaged = [model.damage for model in self._models.values() if model.damage]
        return [*changed, *damaged, *unfit]

    def spec(self, name: str | None = None) -> ModelSpec:
        """Return what the registry says about one model; raises `UnknownModelError`."""
        return self.find(name).spec

    def find(
        self,
        name: str | None = None,
        input_type: AskedRole | None = None,
        kinds: Sequence[Kind] = KINDS,
    ) -> Named:
        """Return which model a request means, and the role of its texts; see `Catalog.find`.

        Without a name, it is the default model of the first of these kinds.
        """
        return self._catalog.find(name or self._defaults[kinds[0]], input_type, kinds=kinds)

    def names(self, spec: ModelSpec) -> Mapping[str, InputType | None]:
        """Return the names under which to list a model; see `Catalog.names`."""
        return self._catalog.names(spec)

    def queued_texts(self) -> dict[str, int]:
        """Return how many texts without a vector each busy model has."""
        backlogs = (model.backlog for model in self._models.values())
        return {backlog.name: backlog.queued_texts for backlog in backlogs if backlog.busy}

    def memory_bytes(self) -> dict[str, int]:
        """Return the memory of each loaded model's workers, read from the system."""
        return {model.spec.name: model.memory_bytes for model in self._everyone() if model.sessions}

    def check_open(self) -> None:
        """Raise `ShuttingDownError` once the pool takes no more requests."""
        if self._closing:
            raise shutting_down()

    def leave(self) -> None:
        """Begin to leave: nobody should send more, but what comes is still answered."""
        self._leaving = True

    def check_ready(self, name: str | None, fingerprint: str | None) -> None:
        """Pass if requests may be sent, for this model and space if any is named.

        Raises:
            ShuttingDownError: the server is about to end.
            UnknownModelError: no model has that name.
            NotServedError: see `check_served`.
        """
        if self._leaving or self._closing:
            raise shutting_down()
        if name is not None or fingerprint is not None:
            check_served(self._model(name), fingerprint)

    def states(self) -> dict[str, State]:
        """Return the state of every entry, by name; cheap."""
        return {name: model.state for name, model in self._models.items()}

    async def drain(self, within_s: float) -> None:
        """Take no more; refuse requests that wait for a worker or are not answered in time."""
        self._closing = True
        for model in self._everyone():
            model.refuse_waiting(shutting_down())
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.until(lambda: not any(model.backlog.busy for model in self._everyone()))
        for model in self._everyone():
            model.refuse_all(shutting_down())

    @property
    def is_starting(self) -> bool:
        """Whether any model is starting."""
        return "starting" in self.states().values()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once a condition is true that depends on the states of models."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Refuse what has not been answered yet, and end all workers."""
        await self.drain(0)
        await asyncio.gather(*(model.unload("shutdown") for model in self._everyone()))

    # -- inside -----------------------------------------------------------------------------

    def _entry_called(self, name: str) -> str:
        """Return the entry's own name for a name or alias; unchanged if there is no such entry."""
        try:
            return self._catalog.get(name).name
        except UnknownModelError:
            return name

    def _everyone(self) -> list[Model]:
        """Return all models, including those that are leaving for good."""
        self._retired = [model for model in self._retired if model.alive]
        return [*self._models.values(), *self._retired]

    def _freed(self) -> None:
        """Offer room to models that wait for it, then to those that lack workers."""
        self._changed.set()
        if self.is_starting or self._closing:
            return  # a model that starts goes first; it says when it is ready or gone
        for model in self._models.values():
            model.grow()

    def _model(self, name: str | None) -> Model:
        self.check_open()
        return self._models[self.spec(name).name]

    def _status(self, model: Model, pulled: bool | None = None) -> ModelStatus:
        return status_of(model, self._catalog.names(model.spec), pulled=pulled)

    def _admit(self, named: Named, request: EmbedRequest) -> Job:
        spec, role = named
        count = checked_count(request, self._limits.max_texts)
        dimensions = checked_size(spec, request)
        if request.spans is not None:
            check_late(spec, self._catalog)
        queued = sum(map(QUEUED_TEXTS, self._everyone()))  # for each request, so without Python
        if queued and queued + count > self._limits.max_queued_texts:
            raise QueueFullError(
                f"{queued} texts are already waiting.",
                hint="Try again in a moment, or raise limits.max_queued_texts.",
            )
        prompt = spec.prompts.get(role, "") if role else ""
        lacks_prompt = role == "query" and not prompt and spec.kind == "embed"
        if lacks_prompt and spec.name not in self._without_prompt:
            self._without_prompt.add(spec.name)
            log.warning(
                "%s has no query prompt; texts of input_type query are embedded as they are."
                " If it was trained with one, set it in models.%s.prompts.",
                spec.name, spec.name,
            )  # fmt: skip
        return Job(
            request,
            prompt=prompt,
            dimensions=dimensions,
            is_query=role == "query",
            is_sparse=spec.kind == "sparse",
        )

    async def _in_time(self, model: Model, doing: Awaitable[T]) -> T:
        """Return what a model has to do first, unless a request's time passes meanwhile."""
        try:
            async with asyncio.timeout(self._limits.request_timeout):
                return await doing
        except TimeoutError:
            raise self._too_late(model) from None

    def _too_late(self, model: Model) -> NoRoomError | DeadlineError:
        limit = f"{self._limits.request_timeout:g} s"
        if model.state == "starting" and not self.room.holds(model):
            return NoRoomError(
                f"Other models left no room for {model.spec.name} within {limit}.",
                hint="Raise limits.max_loaded or limits.memory_budget, or unload a model.",
            )
        return DeadlineError(
            f"{model.spec.name} did not answer within {limit}; it is {model.state}.",
            hint="Try again: a download or start in progress continues. See `emberd ps`.",
        )


def shutting_down() -> ShuttingDownError:
    """Return the error for requests that come after the shutdown has begun."""
    return ShuttingDownError("The server is shutting down.", hint="Try again in a moment.")
