"""One model, several batches at once: a stream for each core, and one that has them all.

On many cores a batch of a few hundred tokens is too small to share: most of the time would go into
threads that wait for each other. One core for each batch does twice as much (decision 31). A batch
that has nothing beside it gets all cores, so that a single query is as fast as it can be.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

from emberd.backends.base import TokenIds
from emberd.backends.mapped import released_meanwhile
from emberd.vectors import Matrix

if TYPE_CHECKING:
    from openvino import CompiledModel

FEWEST_CORES = 4  # below, a batch is worth sharing, and a second copy of the weights is not,
FEWEST_CORES_AMX = 2  # unless products take so little time that sharing them takes as long
FEWEST_CORES_LARGE = 8  # large products are worth sharing among several cores
LARGE_BYTES = 2**30

logger = logging.getLogger(__name__)


def streams_for(cores: int, size: int, *, with_amx: bool) -> int:
    """Return how many batches should run at once on so many cores; `size` is that of the model."""
    fewest = FEWEST_CORES_AMX if with_amx else FEWEST_CORES
    if size >= LARGE_BYTES:
        fewest = FEWEST_CORES_LARGE
    return cores if cores >= fewest else 1


class Stream:
    """Runs one batch at a time. `release` is called in the first, which repacks the weights."""

    def __init__(self, model: "CompiledModel", release: Callable[[], None]) -> None:
        self._request = model.create_infer_request()
        self._release: Callable[[], None] | None = release

    def run(self, inputs: Sequence[TokenIds]) -> Matrix:
        """Run a batch; the result is a copy."""
        # Not a list, nor the result by its number: OpenVINO looks at what those might also be.
        with released_meanwhile(self._release) if self._release else nullcontext():
            vectors: Matrix = self._request.infer(tuple(inputs)).to_tuple()[0]
        self._release = None
        return vectors


class Streams:
    """Runs batches on whichever stream is free, from any thread; `count` of them at once."""

    def __init__(
        self,
        model: "CompiledModel",
        count: int,
        divide: Callable[[], "CompiledModel"],
        release: Callable[[], None],
    ) -> None:
        """Run on `model`, which has one stream with all cores.

        `divide` returns the model with `count` streams; it is called when it is needed first. If it
        raises RuntimeError, batches run one after the other. `release` gives back memory that the
        engine reads from the compiled model's file and can read again. It is called when weights
        have been repacked, and when the last of several batches has ended.
        """
        self.count = count
        self._model = model
        self._whole = Stream(model, release)
        self._one_at_a_time = Lock()  # for `_whole`
        self._divide = divide
        self._dividing = Lock()
        self._free: SimpleQueue[Stream] | None = None
        self._release = release

    def run_alone(self, inputs: Sequence[TokenIds]) -> Matrix:
        """Run a batch on all cores."""
        with self._one_at_a_time:
            return self._whole.run(inputs)

    def release_buffers(self) -> None:
        """Return what the last batch on all cores needed besides the weights."""
        with self._one_at_a_time:
            self._model.release_memory()

    def run(self, inputs: Sequence[TokenIds]) -> Matrix:
        """Run a batch on a stream of its own, beside others."""
        free = self._divided()
        if free is None:
            return self.run_alone(inputs)
        stream = free.get()
        try:
            return stream.run(inputs)
        finally:
            free.put(stream)
            if free.qsize() == self.count:
                self._release()

    def _divided(self) -> "SimpleQueue[Stream] | None":
        """Return the free streams; None if there is only the one with all cores."""
        if self._free or self.count == 1:
            return self._free
        with self._dividing:
            if self._free or self.count == 1:
                return self._free
            try:
                model = self._divide()
            except RuntimeError as error:  # there is no memory, or the engine cannot export here
                logger.warning("Batches run one after the other: %s", error)
                self.count = 1
                return None
            free: SimpleQueue[Stream] = SimpleQueue()
            for _ in range(self.count):
                free.put(Stream(model, self._release))
            self._free = free
        return self._free
