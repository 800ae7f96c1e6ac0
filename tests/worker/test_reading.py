"""Which thread reads: whoever has nothing to run, and another one while all are busy."""

import os
from collections.abc import Iterator, Sequence
from queue import Queue
from threading import Thread, current_thread
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from emberd.backends.base import TokenIds
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import QUICK_TOKENS, Batcher
from emberd.worker.budget import Budget
from emberd.worker.inbox import Inbox
from emberd.worker.inference import run_batches
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Sender
from emberd.worker.tokenizer import Tokenizer, Tokens
from emberd.worker.work import SLICE_CHARS
from tests.serving import wait_for
from tests.worker.distinct import text_of

WITHIN_S = 30.0


class Worker:
    """A worker's threads in this process. A text has as many tokens as characters.

    `ran` has the length of each text that began to run; a batch with a text of `held` tokens ends
    once something is put into `release`. `where` has the threads that tokenized and that ran each
    text, by its length.
    """

    dimensions, compute = 2, "f32"
    held = QUICK_TOKENS + 1

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.ran: list[int] = []
        self.release: Queue[None] = Queue()
        self.where: dict[int, list[str]] = {}
        there, self._requests = os.pipe()
        answers, back = os.pipe()
        self._stdin, self._stdout = os.fdopen(there, "rb"), os.fdopen(back, "wb")
        self._answers = os.fdopen(answers, "rb")
        batcher, self._number = Batcher(Budget(4096)), 0
        batcher.streams = streams
        inbox = Inbox(cast("Any", self._stdin), batcher, send := Sender(self._stdout))
        self._inbox = Thread(target=inbox.run, name="inbox", daemon=True)
        self._inbox.start()
        inbox.open(
            cast("Tokenizer", self._tokenizer()), cast("Any", SimpleNamespace(token_ids=None))
        )
        spec = SimpleNamespace(normalize=False, dimensions=2)
        loaded: Any = SimpleNamespace(encoder=self, spec=spec, takes_pairs=False, is_sparse=False)
        arguments = (batcher, cast("Loaded", loaded), send, Budget(4096))
        self._main = Thread(target=run_batches, args=arguments, name="stream 0", daemon=True)
        self._main.start()

    def _tokenizer(self) -> SimpleNamespace:
        def encode(texts: Sequence[str], prompt: str = "") -> list[Tokens]:
            del prompt
            for text in texts:
                self.where[len(text)] = [current_thread().name]
            return [Tokens([1] * len(text), len(text)) for text in texts]

        return SimpleNamespace(encode=encode)

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Run a batch."""
        del token_ids
        lengths = mask.sum(axis=1).tolist()
        for length in lengths:
            self.where[length].append(current_thread().name)
            self.ran.append(length)
        if self.held in lengths:
            self.release.get(timeout=WITHIN_S)
        return np.ones((len(mask), 2), np.float32)

    encode_alone = encode

    def ask(self, *lengths: int) -> int:
        """Send a request for texts of these lengths; return its id."""
        self._number += 1
        texts = [text_of(length) for length in lengths]
        self.send(
            wire.Embed(
                id=self._number, texts=texts, prompt="", truncate=True, dimensions=2, encoding="raw"
            )
        )
        return self._number

    def send(self, frame: wire.Frame) -> None:
        """Send a frame."""
        os.write(self._requests, wire.encode(frame))

    def answer(self) -> int:
        """Return the id of the next request that is answered."""
        while received := wire.read(self._answers):
            if isinstance(received.frame, wire.Fragments):
                return received.frame.id
        raise EOFError

    def end(self) -> None:
        """Close the pipe; its threads end."""
        os.close(self._requests)
        for thread in (self._main, self._inbox):
            thread.join(WITHIN_S)
            assert not thread.is_alive()
        for file in (self._stdin, self._stdout, self._answers):
            file.close()


@pytest.fixture(params=[1, 3])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    """One that has answered something: until then another thread reads."""
    running = Worker(request.param)
    assert running.ask(1) == running.answer()
    yield running
    running.end()


def test_a_query_alone_is_tokenized_and_run_by_the_thread_that_read_it() -> None:
    worker = Worker(1)
    for length in (1, 2, 3):
        assert worker.ask(length) == worker.answer()

    worker.end()

    assert worker.where[2] == worker.where[3] == ["stream 0", "stream 0"]


def test_what_comes_while_a_batch_runs_is_read_meanwhile(worker: Worker) -> None:
    first = worker.ask(worker.held)
    wait_for(lambda: worker.held in worker.ran)
    second = worker.ask(9)
    wait_for(lambda: 9 in worker.where)
    worker.release.put(None)

    assert {worker.answer(), worker.answer()} == {first, second}


def test_a_query_after_a_busy_time_is_answered(worker: Worker) -> None:
    for _ in range(3):
        first = worker.ask(worker.held)
        worker.release.put(None)
        assert worker.answer() == first
        assert worker.ask(5) == worker.answer()


def test_many_that_come_at_once_are_all_answered(worker: Worker) -> None:
    asked = {worker.ask(2 + number % 7) for number in range(50)}

    assert {worker.answer() for _ in asked} == asked


def test_a_cancelled_request_leaves_nobody_waiting(worker: Worker) -> None:
    for _ in range(3):
        worker.send(wire.Cancel(id=99))
        assert worker.ask(4) == worker.answer()


def test_a_long_text_that_another_thread_tokenizes_is_run(worker: Worker) -> None:
    for _ in range(2):
        assert worker.ask(SLICE_CHARS + 1) == worker.answer()
        assert worker.ask(3) == worker.answer()
