"""A cluster as an embedder: batches of texts go to its nodes, and their vectors come back.

`emberd migrate run --ray` reads, stages and swaps where it runs. Only the model's work is
elsewhere.
"""

import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Condition, Event
from typing import Any, Self, TextIO, TypeVar, Unpack, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from emberd.aside import in_thread
from emberd.config.load import Config
from emberd.errors import EmberdError, NoServerError, WorkerCrashedError, WorkerStartError
from emberd.migrate.embedding import Asked, Embedded, PoolEmbedder
from emberd.migrate.turns import IN_FLIGHT
from emberd.ray import memory
from emberd.ray.configuration import at_home, without_secrets
from emberd.ray.crossing import Refused

LISTENER_S = 5.0  # to find whether anybody listens there
TRIES = 3  # of a batch, on as many nodes
LOOK_S = 1.0  # between two looks whether a worker has come back
RESTART_S = 120.0  # for the first of them, if all are lost
AGAIN = "`ray status` says how the nodes are; run the same command again to continue."
FREE_TRIES = 10  # a second apart
CORES = 0.1  # that Ray sets aside for a worker
END_S = 10.0  # for the threads that call Ray, once the workers are ended

T = TypeVar("T")


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a part of a cluster while the block runs; `auto` finds the one that runs on this machine.

    Raises:
        NoServerError: there is none, or it takes this process for a stranger.
    """
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, RayError) as error:  # ConnectionError among them
        said = str(error).partition("\n")[0].rstrip(".")
        raise NoServerError(
            f"There is no Ray cluster at {address} that this machine is part of: {said}.",
            hint="Start one with `emberd ray start --head`, or join it with `emberd ray start"
            " --address HEAD:6379` and the same token. Or leave out --ray.",
        ) from None
    with redirect_stdout(cast("TextIO", _WithoutRays(sys.stdout))):
        try:
            yield
        finally:
            with redirect_stdout(sys.stderr):  # Ray prints what it has held back
                ray.shutdown()


class _WithoutRays:
    """A stdout for results alone: what threads of Ray's print, of lost nodes, goes to stderr."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Write as `TextIO` does."""
        is_rays = threading.current_thread().name.startswith("ray_")
        return (sys.stderr if is_rays else self._out).write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        return getattr(self._out, name)


def reason_of(error: RayError) -> str:
    """Return the last line of what Ray says, which is about the cause; a traceback is before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _require_listener(address: str) -> None:
    """Raise OSError if nobody listens at a host and port: Ray would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), LISTENER_S).close()


def places() -> tuple[int, dict[str, float]]:
    """Return for how many workers there is room, and what Ray sets aside for each.

    One for each GPU that is free, if the cluster has any; otherwise one for each node. That uses
    all of its cores, but Ray sets only a small part of one aside: a node of two cores that serves,
    too, has no whole one left, and the worker would wait for it forever.

    Raises:
        NoServerError: nothing is free.
    """
    takes: dict[str, float] = {"num_cpus": CORES}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(each.get("GPU") for each in nodes)
    for _ in range(FREE_TRIES):
        free = ray.available_resources()
        count = (
            int(free.get("GPU", 0)) if has_gpus else sum(bool(each.get("CPU")) for each in nodes)
        )
        if count := min(count, int(free.get("CPU", 0) / CORES)):
            return count, takes | ({"num_gpus": 1} if has_gpus else {})
        time.sleep(1)  # what a job that has ended had is not free at once
    raise NoServerError(
        f"The cluster has no {'GPU' if has_gpus else 'core'} that is free.",
        hint="`ray status` says who uses them. Wait for them, or leave out --ray.",
    )


def check_alike(run: str, model: str, pool: PoolEmbedder) -> None:
    """Load a model, and pass if it computes with the same numbers as on the run's other nodes.

    Fingerprints do not say it: in bf16 and f32, vectors are of one space, but not the same.

    Raises:
        WorkerStartError: the first node that was asked has others.
        EmberdError: the model cannot be loaded here.
    """
    mine = pool.compute(model)
    first = memory.put_first([run, model], mine.encode()).decode()
    if first != mine:
        raise WorkerStartError(
            f"The nodes would not compute alike: {model} in {first} on one of them, and in"
            f" {mine} on {socket.gethostname()}.",
            hint=f"State `compute: f32` in the entry of {model}, or use nodes that are alike.",
        )


class Worker:
    """An actor with a model's worker process; it takes several batches at once."""

    def __init__(self, config: Config, run: str) -> None:
        self._pool = PoolEmbedder(at_home(config)).__enter__()  # until the actor's process ends
        self._run = run
        self._is_alike = False

    def is_here(self) -> bool:
        """Answer: this actor runs."""
        return True

    def embed(self, texts: list[str], options: Asked) -> Embedded | Refused:
        """Return the vectors, or the error."""
        try:
            if not self._is_alike:
                check_alike(self._run, options["model"], self._pool)
                self._is_alike = True
            return self._pool.submit(texts, **options).result()
        except EmberdError as error:
            return Refused.of(error)


class ClusterEmbedder:
    """An `Embedder` with a worker for each place in a cluster; a context manager.

    Args:
        config: the settings and models, for every node; homes are each node's own.
        address: where the cluster is.
    """

    at_once = IN_FLIGHT  # until it has counted the places

    def __init__(self, config: Config, address: str) -> None:
        self._config = config
        self._address = address
        self._free: SimpleQueue[ActorHandle[Worker]] = SimpleQueue()  # a worker for each batch
        self._lost = 0  # of these places, as their workers are restarted
        self._lost_by = ""
        self._asking = 0  # threads that call Ray
        self._counting = Condition()
        self._over = Event()

    def __enter__(self) -> Self:
        with ExitStack() as on_error:
            on_error.enter_context(joined(self._address))
            self._begin()
            self._left = on_error.pop_all()
        return self

    def _begin(self) -> None:
        """Start the workers."""
        count, takes = places()
        make = ray.remote(Worker).options(
            max_concurrency=IN_FLIGHT, max_restarts=-1, scheduling_strategy="SPREAD", **takes
        )
        run = secrets.token_hex(8)
        self._workers = [make.remote(without_secrets(self._config), run) for _ in range(count)]
        for worker in self._workers * IN_FLIGHT:
            self._free.put(worker)
        self.at_once = self._free.qsize()

    def __exit__(self, *_: object) -> None:
        """End the workers, so that nobody waits for them any more, and only then leave the cluster.

        If a thread is in a call of Ray's then, Ray ends the process with exit code 1.
        """
        self._over.set()
        with self._left:
            for worker in self._workers:
                with suppress(RayError):
                    ray.kill(worker)
            with self._counting:
                self._counting.wait_for(lambda: not self._asking, END_S)

    def submit(self, texts: Sequence[str], **options: Unpack[Asked]) -> "Future[Embedded]":
        """See `Embedder`."""
        return self._in_thread(partial(self._ask, list(texts), options))

    def _in_thread(self, work: Callable[[], T]) -> "Future[T]":
        """Start what calls Ray, and count it while it does."""

        def counted() -> T:
            try:
                return work()
            finally:
                with self._counting:
                    self._asking -= 1
                    self._counting.notify_all()

        with self._counting:
            self._asking += 1
        return in_thread(counted)

    def _ask(self, texts: list[str], options: Asked) -> Embedded:
        """Ask whichever worker is free, and another one if that is lost."""
        for _ in range(TRIES):
            worker = self._next()
            try:
                said: Embedded | Refused = ray.get(worker.embed.remote(texts, options))
            except RayTaskError as error:  # of our own making: another worker would fail as well
                self._free.put(worker)
                failed = f"A worker on the cluster has failed: {reason_of(error)}"
                raise WorkerCrashedError(failed, hint=AGAIN) from None
            except RayError as error:
                self._lose(worker, error)
                continue
            self._free.put(worker)
            if isinstance(said, Refused):
                raise said.received()
            return said
        raise WorkerCrashedError(
            f"{TRIES} workers on the cluster have ended while they embedded a batch; the last"
            f" one: {self._lost_by}",
            hint=AGAIN,
        )

    def _next(self) -> "ActorHandle[Worker]":
        """Return a worker that is free.

        Raises:
            WorkerCrashedError: none comes back.
            CancelledError: this embedder is being closed.
        """
        since_s = time.monotonic()
        while not self._over.is_set():
            with suppress(Empty):
                return self._free.get(timeout=LOOK_S)
            if self._lost < self.at_once:  # some work, however long that takes
                since_s = time.monotonic()
            elif time.monotonic() - since_s > RESTART_S:
                raise WorkerCrashedError(
                    f"No worker on the cluster has come back within {RESTART_S:.0f} s; the last"
                    f" one was lost by: {self._lost_by}",
                    hint=AGAIN,
                )
        raise CancelledError

    def _lose(self, worker: "ActorHandle[Worker]", error: RayError) -> None:
        """Ask a worker for nothing until it runs again, perhaps on another node."""
        with self._counting:
            self._lost += 1
            self._lost_by = reason_of(error)

        def wait() -> None:
            while not self._over.wait(LOOK_S):
                with suppress(RayError):
                    ray.get(worker.is_here.remote())
                    break
            with self._counting:
                self._lost -= 1
            self._free.put(worker)

        self._in_thread(wait)

    def release(self, model: str) -> None:
        """See `Embedder`; the workers end with this."""
