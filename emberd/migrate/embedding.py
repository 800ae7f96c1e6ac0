"""Embeds texts for checks, migrations and comparisons: a running server, or a pool of our own."""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import Protocol, Required, Self, TypedDict, Unpack

import numpy as np

from emberd.aside import in_thread
from emberd.client import clients
from emberd.config.load import Config
from emberd.dtypes import NUMPY, Dtype, has_step, row_bytes
from emberd.errors import (
    ConfigError,
    DeadlineError,
    EmberdError,
    NoServerError,
    SourceError,
    TooLargeError,
    UnavailableError,
)
from emberd.folder.reading import read_folder
from emberd.migrate.notes import now
from emberd.migrate.turns import Counted, in_turn
from emberd.models.availability import find_here, require_here
from emberd.pool.manager import Pool
from emberd.pool.request import EmbedRequest
from emberd.ranking import Ranked, rank
from emberd.registry.spec import InputType, ModelSpec
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.compare import Space
from emberd.spaces.fingerprint import of_dtype
from emberd.spaces.lock import LockFile
from emberd.spaces.options import SpaceOptions
from emberd.spaces.probes import PROBES, encode
from emberd.stores.base import Stamp
from emberd.vectors import Rows

PATIENCE_S = 60.0  # how long to wait for a server that is busy or restarting
AGAIN_S = 1.0  # until it is asked again
MOST_TEXTS, MOST_QUEUED = 2048, 10**9  # texts in a request, and waiting
BATCH = 256  # texts in one request; also the default of `migrate run --batch`

Places = list[int]
"""Of texts in a request, in the order of their relevance."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """`vectors` has a row of the dtype asked for for each text, in their order.

    `truncated` of the texts were cut.
    """

    vectors: Rows
    fingerprint: str
    truncated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A vector space to move to. `probes` are the vectors of the probe texts, encoded.

    `options` are its limits and options, as far as they are known. `dtype` is what float32 vectors
    are rounded to, with `step` for int8, and `rounded_from` is the space of these.
    """

    model: str
    dimensions: int
    fingerprint: str
    probes: str
    options: SpaceOptions = SpaceOptions()  # noqa: RUF009 - it is frozen
    input_type: InputType | None = None
    dtype: Dtype = "float"
    step: float | None = None
    rounded_from: "Target | None" = None

    @property
    def vector_bytes(self) -> int:
        """The size of a vector."""
        return row_bytes(self.dimensions, self.dtype)

    @property
    def space(self) -> Space:
        """The space, as `spaces.compare` takes it."""
        return Space(
            name=self.model, model=self.model, fingerprints=(self.fingerprint,),
            sizes=(self.dimensions,), options=self.options, probes=self.probes,
            dtype=self.dtype, step=self.step,
        )  # fmt: skip

    def stamp(self, migration: str, chunk: StoreChunking | None = None) -> Stamp:
        """Return what vectors of this space are stamped with, as written now by one run."""
        return Stamp(
            model=self.model, fingerprint=self.fingerprint, dimensions=self.dimensions,
            probes=self.probes, migration=migration, made_at=now(), options=self.options,
            dtype=self.dtype, step=self.step, chunk=chunk,
        )  # fmt: skip


class Options(TypedDict, total=False):
    """What is asked for beside the texts."""

    model: Required[str]
    dimensions: int | None
    input_type: InputType | None
    fingerprint: str | None
    dtype: Dtype


class Asked(Options, total=False):
    """Who measures wants no vector that was computed before."""

    cache: bool


class Embedder(Protocol):
    """Something that turns texts into vectors, of several batches at the same time."""

    @property
    def at_once(self) -> int:
        """How many batches keep all workers of the model busy that was asked last."""
        ...

    def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
        """Embed one batch; the future raises `EmberdError`, also if the space has changed."""
        ...

    def release(self, model: str) -> None:
        """Unload a model if it was loaded only for this."""
        ...


def _places(ranked: Iterable[Ranked]) -> Places:
    return [each.index for each in ranked]


def submit_to(embedder: Embedder, texts: Sequence[str], target: Target) -> "Future[Embedded]":
    """Embed one batch in the target's space; the future raises if the model is in another one."""
    return embedder.submit(
        texts,
        model=target.model,
        dimensions=target.dimensions,
        input_type=target.input_type,
        fingerprint=target.fingerprint,
        dtype=target.dtype,
    )


def embed(embedder: Embedder, texts: Sequence[str], target: Target) -> Rows:
    """Embed texts in the target's space, a row for each; raises if the model is in another one."""
    return embed_at_once(embedder, texts, target).vectors


def embed_at_once(embedder: Embedder, texts: Sequence[str], target: Target) -> Embedded:
    """Do what `embed` does, and count the texts that were cut."""
    batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    answers = [
        answer for _, answer in in_turn(batches, lambda each: submit_to(embedder, each, target))
    ]
    vectors = np.concatenate([answer.vectors for answer in answers])
    return Embedded(vectors, target.fingerprint, sum(answer.truncated for answer in answers))


class PoolEmbedder:
    """A pool in its own thread, for when no server is running; a context manager."""

    def __init__(self, config: Config) -> None:
        limits = replace(
            config.settings.limits,
            max_texts=MOST_TEXTS,
            max_queued_texts=MOST_QUEUED,  # `in_turn` bounds them
            request_timeout=600.0,  # a slow machine is not a broken one
        )
        self._counted = Counted()
        self._config = replace(config, settings=replace(config.settings, limits=limits))
        self._loop = asyncio.new_event_loop()
        # A daemon, because some never leave this context (`emberd.ray`): the workers end with us.
        self._thread = Thread(target=self._loop.run_forever, name="emberd-pool", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._pool = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._pool.close(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _open(self) -> Pool:
        return Pool(self._config)  # in the thread whose loop it belongs to

    @property
    def at_once(self) -> int:
        """See `Embedder`."""
        return self._counted.at_once

    def submit(self, texts: Sequence[str], **options: Unpack[Asked]) -> "Future[Embedded]":
        """See `Embedder`."""
        request = EmbedRequest(texts=texts, encoding="raw", **options)
        return asyncio.run_coroutine_threadsafe(self._embed(request), self._loop)

    async def _embed(self, request: EmbedRequest) -> Embedded:
        answer = await self._pool.embed(request)
        self._counted.look(lambda: self._pool.status(request.model, pulled=True).replicas)
        numbers = np.frombuffer(b"".join(answer.fragments), NUMPY[request.dtype])
        vectors = numbers.reshape(len(request.texts), -1)
        return Embedded(vectors, answer.fingerprint, len(answer.truncated))

    def rerank(self, query: str, texts: Sequence[str], *, model: str) -> "Future[Places]":
        """Return the places of the texts in the order of their relevance, computed anew."""
        request = EmbedRequest(texts=texts, query=query, model=model, encoding="raw", cache=False)
        return asyncio.run_coroutine_threadsafe(self._rank(request), self._loop)

    async def _rank(self, request: EmbedRequest) -> Places:
        return _places(rank((await self._pool.embed(request)).fragments))

    def compute(self, model: str) -> str:
        """Load a model, and return which numbers it computes with. Raises EmberdError."""

        async def ask() -> str:
            return (await self._pool.load(model)).compute

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def memory_bytes(self, model: str) -> int:
        """Return what the workers of a model take now."""

        async def ask() -> int:
            return self._pool.status(model).memory_bytes

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def release(self, model: str) -> None:
        """See `Embedder`."""
        asyncio.run_coroutine_threadsafe(self._pool.unload(model), self._loop).result()


class ServerEmbedder:
    """A running server; a context manager.

    `loaded` are the models that were loaded already, which others may be using.
    """

    def __init__(self, client: clients.Client, loaded: Collection[str] = ()) -> None:
        self._client = client
        self._loaded = frozenset(loaded)
        self._is_closed = False
        self._counted = Counted()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for no answer: that of a worker that hangs comes after 20 seconds."""
        self._is_closed = True

    @property
    def at_once(self) -> int:
        """See `Embedder`."""
        return self._counted.at_once

    def submit(self, texts: Sequence[str], **options: Unpack[Asked]) -> "Future[Embedded]":
        """See `Embedder`."""
        return in_thread(partial(self._ask, list(texts), options))

    def _ask(self, texts: list[str], options: Asked) -> Embedded:
        """Ask for all texts at once, or for half at a time if the server's limits are lower."""
        try:
            return self._ask_at_once(texts, options)
        except (TooLargeError, DeadlineError):
            if len(texts) == 1:
                raise
        half = len(texts) // 2
        first = self._ask(texts[:half], options)
        second = self._ask(texts[half:], {**options, "fingerprint": first.fingerprint})
        vectors = np.concatenate([first.vectors, second.vectors])
        return Embedded(vectors, first.fingerprint, first.truncated + second.truncated)

    def _ask_at_once(self, texts: list[str], options: Asked) -> Embedded:
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self._client.embed(texts, **options)
            except (UnavailableError, NoServerError) as error:
                fewer = isinstance(error, DeadlineError) and len(texts) > 1
                given_up = self._is_closed or time.monotonic() > until_s
                if isinstance(error, SourceError) or fewer or given_up:
                    raise
                time.sleep(AGAIN_S)
            else:
                with suppress(EmberdError):  # it may be about to leave; there is an answer
                    self._counted.look(lambda: self._workers(options["model"]))
                return Embedded(answer.vectors, answer.fingerprint, len(answer.truncated))

    def rerank(self, query: str, texts: Sequence[str], *, model: str) -> "Future[Places]":
        """See `PoolEmbedder.rerank`; a server that is busy is not asked again."""
        return in_thread(
            lambda: _places(self._client.rerank(query, texts, model=model, cache=False).results)
        )

    def memory_bytes(self, model: str) -> int:
        """See `PoolEmbedder.memory_bytes`."""
        rows = self._client.models()
        return next(int(row["memory_bytes"]) for row in rows if row["name"] == model)

    def _workers(self, model: str) -> int:
        return sum(int(row["replicas"]) for row in self._client.models() if row["name"] == model)

    def release(self, model: str) -> None:
        """See `Embedder`."""
        if model in self._loaded:
            return
        with suppress(EmberdError):
            self._client.unload(model)


@contextmanager
def open_embedder(config: Config) -> Iterator[PoolEmbedder | ServerEmbedder]:
    """Open the running server or, if there is none, a pool of our own."""
    server = clients.find(config)
    if server is None:
        with PoolEmbedder(config) as pool:
            yield pool
        return
    rows = server.models()
    loaded = [row["name"] for row in rows if row["state"] != "cold"]
    with ServerEmbedder(server, loaded) as embedder:
        yield embedder


def find_target(
    config: Config,
    embedder: Embedder,
    name: str,
    *,
    input_type: InputType | None = None,
    dtype: Dtype = "float",
) -> Target:
    """Load a model and return the space of its vectors.

    Raises:
        UnknownModelError: there is no such model.
        SourceError: its files are not on this machine.
        EmberdError: it cannot be loaded, or has no vectors of this dtype.
    """
    spec = config.catalog.get(name)
    entry = LockFile(config.homes.state).read().get(spec.name)
    require_here(spec, config.homes.hub, entry)
    probes = embedder.submit(PROBES, model=spec.name).result()
    target = Target(
        model=spec.name,
        dimensions=probes.vectors.shape[1],
        fingerprint=probes.fingerprint,
        probes=encode(probes.vectors),
        options=_options(config, spec, probes.fingerprint),
        input_type=input_type,
    )
    return in_dtype(config, embedder, target, dtype)


def in_dtype(config: Config, embedder: Embedder, target: Target, dtype: Dtype) -> Target:
    """Return the space of a float32 target's vectors as another dtype.

    Raises:
        EmberdError: the model has no such vectors, or lock.json does not have the step of its int8.
    """
    if dtype == target.dtype:
        return target
    small = embedder.submit(PROBES[-1:], model=target.model, dtype=dtype).result()
    entry = LockFile(config.homes.state).read().get(target.model)
    step = entry.now.steps.get(str(target.dimensions)) if entry and has_step(dtype) else None
    if small.fingerprint != of_dtype(target.fingerprint, dtype, step or 0.0):
        raise ConfigError(
            f"{LockFile(config.homes.state).path} does not have the step of the {dtype} vectors"
            f" that the server gives for {target.model}.",
            hint="Run this as the user, and with the home, of the server.",
        )
    return replace(
        target, fingerprint=small.fingerprint, dtype=dtype, step=step, rounded_from=target
    )


def _options(config: Config, spec: ModelSpec, fingerprint: str) -> SpaceOptions:
    """Return the options of a space: as noted when it was loaded, or from the model's folder."""
    entry = LockFile(config.homes.state).read().get(spec.name)
    if entry and fingerprint in entry.now.fingerprints.values():
        return entry.now.options
    here = find_here(spec, config.homes.hub, entry)
    return read_folder(here.folder).options(spec) if here else SpaceOptions()
