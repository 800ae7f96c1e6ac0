"""Batches are submitted some at a time, as many as keep all workers busy, and answered in order."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

IN_FLIGHT = 2  # requests to a worker: one is computed while the answer to the other is written
LOOK_S = 1.0  # how often the workers are counted anew

Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


def in_turn(
    batches: Iterable[Batch],
    ask: "Callable[[Batch], Future[Answer]]",
    at_once: Callable[[], int] = lambda: IN_FLIGHT,
) -> Iterator[tuple[Batch, Answer]]:
    """Submit batches and yield each with its answer, in order; so many are under way.

    `at_once` is asked each time, as workers start and end meanwhile.
    """
    rest = iter(batches)
    asked = deque((batch, ask(batch)) for batch in islice(rest, at_once()))
    while asked:
        batch, future = asked.popleft()
        answer = future.result()
        more = max(0, at_once() - len(asked))
        asked.extend((following, ask(following)) for following in islice(rest, more))
        yield batch, answer


class Counted:
    """The workers of a model, counted now and then, as they start and end."""

    def __init__(self) -> None:
        self.at_once = IN_FLIGHT
        self._looked_s = -LOOK_S

    def look(self, workers: Callable[[], int]) -> None:
        """Count them, unless that was just done."""
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._looked_s = time.monotonic()
            self.at_once = IN_FLIGHT * max(1, workers())
