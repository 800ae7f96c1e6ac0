"""Many clients with texts of all lengths: the batches are full, and no length pays for all others.

The clock is virtual: a batch takes as long as the model and the requests in it are assumed to take.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from emberd.worker.batcher import Batch, Batcher
from emberd.worker.budget import Budget
from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import Embed
from tests.worker.distinct import text_of

TOKENS_PER_S = 22_000.0  # about MiniLM in bf16 on two cores
BATCH_S = 0.004
REQUEST_S = 0.0015
LONGEST = 512
SHORT, LONG = 28, 327  # tokens: about 20 and 250 words


class Clock:
    """Seconds that pass when a batch runs."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@dataclass
class Machine:
    """A batcher, and a model that takes its batches one after the other."""

    budget_tokens: int
    clock: Clock = field(default_factory=Clock)
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.batcher = Batcher(Budget(self.budget_tokens), self.clock)
        self.batcher.row_tokens = LONGEST

    def ask(self, *lengths: int) -> int:
        """Queue a request; return its id."""
        number = next(self.ids)
        texts = [text_of(4 * length) for length in lengths]
        request = Embed(
            id=number, texts=texts, prompt="", truncate=True, dimensions=1, encoding="raw"
        )
        found = self.batcher.add(request)
        while found:
            work, indices = found
            self.batcher.add_tokens(
                work, indices, [Tokens([1] * lengths[index], lengths[index]) for index in indices]
            )
            found = self.batcher.next_slice() if work.wants_tokens else None
        return number

    def run(self) -> Batch | None:
        """Run a batch, if something waits."""
        batch = self.batcher.next_batch(wait=False)
        if batch:
            requests = {item.work.request.id for item in batch.items}
            attention = 0.92 + 0.18 * batch.width / LONGEST
            self.clock.now_s += BATCH_S + REQUEST_S * len(requests)
            self.clock.now_s += batch.padded_tokens / TOKENS_PER_S * attention
            self.batcher.ran(batch)
        return batch


def a_length(draw: np.random.Generator) -> int:
    return min(LONGEST, int(draw.integers(3, 401) * 1.3) + 2)


def bulk_texts_per_s(budget_tokens: int) -> float:
    draw, machine = np.random.default_rng(1), Machine(budget_tokens)
    machine.ask(*(a_length(draw) for _ in range(2000)))
    while machine.run():
        pass
    return 2000 / machine.clock.now_s


def closed_loop(clients: int, budget_tokens: int, *, texts: int) -> tuple[float, list[list[float]]]:
    """Have every client ask again when it is answered.

    Returns:
        Texts per second; the sorted waits of short, middling and long texts, in seconds.
    """
    draw, machine = np.random.default_rng(2), Machine(budget_tokens)
    begun: dict[int, tuple[float, int]] = {}
    due = [(draw.random() / 10, client) for client in range(clients)]
    waits: list[list[float]] = [[], [], []]
    answered = 0
    while answered < texts:
        while due and due[0][0] <= machine.clock.now_s:
            heapq.heappop(due)
            length = a_length(draw)
            begun[machine.ask(length)] = machine.clock.now_s, length
        batch = machine.run()
        if not batch:
            machine.clock.now_s = due[0][0]
            continue
        for item in batch.items:
            since_s, length = begun.pop(item.work.request.id)
            kind = (length >= SHORT) + (length > LONG)
            waits[kind].append(machine.clock.now_s - since_s)
            answered += 1
            heapq.heappush(due, (machine.clock.now_s + 0.003, answered))
    return texts / machine.clock.now_s, [sorted(each) for each in waits]


@pytest.mark.parametrize(("clients", "budget_tokens"), [(64, 512), (64, 1024), (16, 512)])
def test_no_length_pays_for_all_others(clients: int, budget_tokens: int) -> None:
    texts_per_s, (short, _, long) = closed_loop(clients, budget_tokens, texts=3000)

    mean_s = clients / texts_per_s
    assert long[len(long) * 9 // 10] <= 3 * mean_s
    assert short[len(short) * 9 // 10] <= 0.2
    assert texts_per_s >= 0.85 * bulk_texts_per_s(budget_tokens)


def test_queries_beside_a_job_wait_for_one_batch_of_it() -> None:
    draw, machine = np.random.default_rng(3), Machine(512)
    job = machine.ask(*(max(16, int(draw.normal(105, 30))) for _ in range(1500)))
    waits: list[float] = []
    begun: dict[int, float] = {}
    left = 1500
    while batch := machine.run():
        for number in {item.work.request.id for item in batch.items} - {job}:
            waits.append(machine.clock.now_s - begun.pop(number))
        left -= sum(item.work.request.id == job for item in batch.items)
        if left and not begun:  # it came while that batch ran
            machine.clock.now_s -= (late_s := 0.010)
            begun[machine.ask(12)] = machine.clock.now_s
            machine.clock.now_s += late_s

    assert len(waits) > 100
    assert max(waits) <= 0.06
