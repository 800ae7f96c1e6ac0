"""Which texts run next: the queue between the thread that tokenizes and the one that computes.

A batch is cut by a budget of padded tokens, from texts sorted by length, so that a single query
waits for at most one batch of somebody's bulk job. Shortest remaining work goes first, and waiting
makes work shorter (ageing), so that nothing starves.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition

from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import Embed

AGEING_TOKENS_PER_S = 10_000  # about what two cores embed in a second


@dataclass(slots=True)
class Work:
    """A request that is waiting: `waiting` holds the indices still to run, longest last."""

    request: Embed
    tokens: Sequence[Tokens]
    arrived_s: float
    waiting: list[int] = field(init=False)
    remaining: int = field(init=False)

    def __post_init__(self) -> None:
        lengths = [len(text.ids) for text in self.tokens]
        self.waiting = sorted(range(len(lengths)), key=lengths.__getitem__)
        self.remaining = sum(lengths)

    def take(self) -> "Item":
        """Remove the longest text that waits."""
        index = self.waiting.pop()
        self.remaining -= len(self.tokens[index].ids)
        return Item(self, index)

    @property
    def next_length(self) -> int:
        """Tokens of what `take` would give."""
        return len(self.tokens[self.waiting[-1]].ids)


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a batch."""

    work: Work
    index: int

    @property
    def tokens(self) -> Tokens:
        """Its tokens."""
        return self.work.tokens[self.index]


class Batcher:
    """Thread-safe; `clock` gives monotonic seconds."""

    def __init__(self, budget_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget_tokens = budget_tokens
        self._clock = clock
        self._works: dict[int, Work] = {}
        self._closed = False
        self._changed = Condition()

    def add(self, request: Embed, tokens: Sequence[Tokens]) -> None:
        """Queue a request."""
        if not tokens:
            return  # nothing to run, and nothing to answer
        with self._changed:
            self._works[request.id] = Work(request, tokens, self._clock())
            self._changed.notify()

    def cancel(self, request_id: int) -> None:
        """Forget a request; what of it is in a batch already still runs."""
        with self._changed:
            self._works.pop(request_id, None)

    def close(self) -> None:
        """Take no more; `next_batch` ends when what is queued has run."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def next_batch(self) -> list[Item] | None:
        """Wait for work and return texts of one or several requests; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._works or self._closed)
            if not self._works:
                return None
            return self._cut()

    def _cut(self) -> list[Item]:
        now_s = self._clock()
        batch: list[Item] = []
        longest = 0
        for work in sorted(
            self._works.values(),
            key=lambda work: work.remaining - AGEING_TOKENS_PER_S * (now_s - work.arrived_s),
        ):
            while work.waiting:
                padded_tokens = (len(batch) + 1) * max(longest, work.next_length)
                if batch and padded_tokens > self._budget_tokens:
                    break
                longest = max(longest, work.next_length)
                batch.append(work.take())
            if not work.waiting:
                del self._works[work.request.id]
            if (len(batch) + 1) * longest > self._budget_tokens:
                break
        return batch
