"""One model, several batches at once: a stream for each core, and one that has them all.

On many cores a batch of a few hundred tokens is too small to share: most of the time would go into
threads that wait for each other. One core for each batch does twice as much (docs/performance.md).
A batch that has nothing beside it gets all cores, so that a single query is as fast as it can be.
"""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

from emberd.backends.base import TokenIds
from emberd.vectors import Matrix

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest

FEWEST_CORES = 4  # below, a batch is worth sharing, and a second copy of the weights is not


def streams_for(cores: int) -> int:
    """Return how many batches should run at once on so many cores."""
    return cores if cores >= FEWEST_CORES else 1


class Streams:
    """Runs batches on whichever stream is free, from any thread; `count` of them at once."""

    def __init__(
        self, model: "CompiledModel", count: int, divide: Callable[[], "CompiledModel"]
    ) -> None:
        """Run on `model`, which has one stream with all cores.

        `divide` returns the model with `count` streams; it is called when it is needed first.
        """
        self.count = count
        self._whole = model.create_infer_request()
        self._one_at_a_time = Lock()  # for `_whole`
        self._divide = divide
        self._dividing = Lock()
        self._free: SimpleQueue[InferRequest] | None = None
        self._fresh = 1  # models that have been imported since `is_fresh`

    def is_fresh(self) -> bool:
        """Whether a model has run its first batch since this was asked."""
        fresh, self._fresh = self._fresh > 0, 0
        return fresh

    def run_alone(self, inputs: Sequence[TokenIds]) -> Matrix:
        """Run a batch on all cores."""
        with self._one_at_a_time:
            vectors: Matrix = self._whole.infer(inputs)[0]
        return vectors

    def run(self, inputs: Sequence[TokenIds]) -> Matrix:
        """Run a batch on a stream of its own, beside others."""
        if self.count == 1:
            return self.run_alone(inputs)
        free = self._divided()
        request = free.get()
        try:
            vectors: Matrix = request.infer(inputs)[0]
        finally:
            free.put(request)
        return vectors

    def _divided(self) -> "SimpleQueue[InferRequest]":
        if not self._free:
            with self._dividing:
                if not self._free:
                    free: SimpleQueue[InferRequest] = SimpleQueue()
                    model = self._divide()
                    for _ in range(self.count):
                        free.put(model.create_infer_request())
                    self._free, self._fresh = free, 1
        return self._free
