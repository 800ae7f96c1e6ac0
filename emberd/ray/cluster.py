"""A cluster as an embedder: batches of texts go to its nodes, and their vectors come back.

`emberd migrate run --ray` reads, stages and swaps where it runs. Only the model's work is
elsewhere.
"""

import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Self, Unpack

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from emberd.aside import in_thread
from emberd.config.load import Config
from emberd.errors import EmberdError, NoServerError, WorkerCrashedError
from emberd.migrate.embedding import IN_FLIGHT, Asked, Embedded, PoolEmbedder
from emberd.ray.configuration import at_home
from emberd.ray.crossing import Refused

LISTENER_S = 5.0  # to find whether anybody listens there
TRIES = 3  # of a batch, on as many nodes
FREE_TRIES = 10  # a second apart
CORES = 0.1  # that Ray sets aside for a worker


def join(address: str) -> None:
    """Become a part of a cluster; `auto` finds the one that runs on this machine.

    Raises:
        NoServerError: there is none.
    """
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError among them
        said = str(error).partition("\n")[0].rstrip(".")
        raise NoServerError(
            f"There is no Ray cluster at {address}: {said}.",
            hint="Start one with `emberd ray start --head`, or leave out --ray.",
        ) from None


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


class Worker:
    """An actor with a model's worker process; it takes several batches at once."""

    def __init__(self, config: Config) -> None:
        self._pool = PoolEmbedder(at_home(config)).__enter__()  # until the actor's process ends

    def embed(self, texts: list[str], options: Asked) -> Embedded | Refused:
        """Return the vectors, or the error."""
        try:
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

    def __enter__(self) -> Self:
        join(self._address)
        count, takes = places()
        make = ray.remote(Worker).options(
            max_concurrency=IN_FLIGHT, max_restarts=-1, scheduling_strategy="SPREAD", **takes
        )
        workers = [make.remote(self._config) for _ in range(count)]
        for worker in workers * IN_FLIGHT:
            self._free.put(worker)
        self.at_once = self._free.qsize()
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def submit(self, texts: Sequence[str], **options: Unpack[Asked]) -> "Future[Embedded]":
        """See `Embedder`."""
        return in_thread(partial(self._ask, list(texts), options))

    def _ask(self, texts: list[str], options: Asked) -> Embedded:
        """Ask whichever worker is free, and another one if that is lost."""
        for _ in range(TRIES):
            worker = self._free.get()
            try:
                said: Embedded | Refused = ray.get(worker.embed.remote(texts, options))
            except RayError:
                continue
            finally:
                self._free.put(worker)
            if isinstance(said, Refused):
                raise said.received()
            return said
        raise WorkerCrashedError(
            f"{TRIES} workers on the cluster have ended while they embedded a batch.",
            hint="`ray status` says how the nodes are; run the same command again to continue.",
        )

    def release(self, model: str) -> None:
        """See `Embedder`; the workers end with this."""
