"""Several batches at once, for an encoder that can do that; one with nothing beside it is alone."""

import io
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from emberd.backends.base import TokenIds
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import FEWEST_TOKENS, FIRST_TOKENS, Budget
from emberd.worker.inference import run_batches
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Sender
from emberd.worker.tokenizer import Tokens
from tests.worker.distinct import text_of

STREAMS = 3


class Together:
    """Runs a batch only when there is one on every stream; a row says how long its text is."""

    dimensions, compute, streams = 2, "f32", STREAMS

    def __init__(self) -> None:
        self.alone = self.beside = 0
        self._all = Barrier(STREAMS, timeout=30)

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Wait for the others."""
        self.beside += 1
        self._all.wait()
        return self._rows(token_ids, mask)

    def encode_alone(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Wait for nobody."""
        self.alone += 1
        return self._rows(token_ids, mask)

    @staticmethod
    def _rows(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        del token_ids
        return np.stack([mask.sum(axis=1), np.ones(len(mask))], axis=1).astype(np.float32)


def add(batcher: Batcher, number: int, *lengths: int) -> None:
    request = wire.Embed(
        id=number,
        texts=[text_of(4 * length) for length in lengths],
        prompt="",
        truncate=True,
        dimensions=2,
        encoding="raw",
    )
    found = batcher.add(request)
    assert found
    batcher.add_tokens(*found, [Tokens([1] * length, length) for length in lengths])


def run(encoder: Together, *requests: list[int], budget: int) -> list[wire.Fragments]:
    """Run these requests, given the lengths of their texts; return what answers them."""
    batcher, stream = Batcher(Budget(budget)), io.BytesIO()
    batcher.streams = encoder.streams
    for number, lengths in enumerate(requests):
        add(batcher, number, *lengths)
    batcher.close()
    loaded: Any = SimpleNamespace(
        takes_pairs=False,
        is_sparse=False,
        encoder=encoder,
        spec=SimpleNamespace(normalize=False, dimensions=2),
    )
    run_batches(batcher, cast("Loaded", loaded), Sender(stream), Budget(budget))
    stream.seek(0)
    answers = []
    while received := wire.read(stream):
        if isinstance(received.frame, wire.Fragments):
            rows = np.frombuffer(received.payload, "<f4").reshape(-1, 2)
            lengths = requests[received.frame.id]
            assert rows[:, 0].tolist() == [lengths[index] for index in received.frame.indices]
            answers.append(received.frame)
    return answers


def test_as_many_batches_run_at_once_as_there_are_streams() -> None:
    encoder = Together()
    tokens = FIRST_TOKENS // STREAMS + 1  # so that no round is a single batch

    answers = run(encoder, *([tokens],) * (2 * STREAMS), budget=tokens)

    assert sorted(answer.id for answer in answers) == [*range(2 * STREAMS)]
    assert (encoder.alone, encoder.beside) == (0, 2 * STREAMS)


def test_a_batch_with_nothing_beside_it_has_the_whole_processor() -> None:
    encoder = Together()

    run(encoder, [5, 7, 9], budget=100)

    assert (encoder.alone, encoder.beside) == (1, 0)


def test_every_stream_gets_some_of_a_request() -> None:
    batcher = Batcher(Budget(4096))
    batcher.streams = 4
    add(batcher, 1, *[100] * 80)

    sizes = [len(batch.items) for batch in iter(lambda: batcher.next_batch(wait=False), None)]

    assert len(sizes) >= batcher.streams
    assert max(sizes) <= 80 / batcher.streams
    assert sum(sizes) == 80


def test_what_is_little_is_not_cut_into_pieces() -> None:
    batcher = Batcher(Budget(512))
    batcher.streams = 16
    for number in range(2):
        add(batcher, number, *[20] * 10)

    first = batcher.next_batch()
    assert first
    assert first.is_alone
    assert len(first.items) == 20

    add(batcher, 3, *[20] * 10)
    beside = batcher.next_batch()
    assert beside
    assert not beside.is_alone
    assert beside.padded_tokens <= FEWEST_TOKENS


def test_a_stream_that_ends_makes_room_for_one_alone() -> None:
    batcher = Batcher(Budget(512))
    batcher.streams = 2
    add(batcher, 1, 20)
    first = batcher.next_batch()
    assert first
    batcher.ran(first)
    add(batcher, 2, 20)

    after = batcher.next_batch()

    assert after
    assert after.is_alone


def test_streams_that_wait_end_when_the_last_text_has_run() -> None:
    batcher = Batcher(Budget(512))
    batcher.streams = 4
    ended: list[bool] = []

    def wait() -> None:
        while batch := batcher.next_batch():
            batcher.ran(batch)
        ended.append(True)

    threads = [Thread(target=wait, daemon=True) for _ in range(batcher.streams)]
    for thread in threads:
        thread.start()
    for number in range(20):
        add(batcher, number, 30, 40)
    batcher.close()
    for thread in threads:
        thread.join(30)

    assert len(ended) == batcher.streams


def test_what_batches_take_is_noted_from_every_stream() -> None:
    budget, failed = Budget(512), []

    def note() -> None:
        try:
            for _ in range(3000):
                budget.note(budget.tokens, budget.tokens / 20_000)
        except Exception as error:  # noqa: BLE001 - of whatever kind
            failed.append(error)

    threads = [Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed


def test_one_long_text_has_the_whole_processor() -> None:
    batcher = Batcher(Budget(64))
    batcher.streams = 16
    add(batcher, 1, 600)

    batch = batcher.next_batch()

    assert batch
    assert batch.is_alone
