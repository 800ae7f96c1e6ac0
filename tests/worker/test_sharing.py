"""A text that several requests have in common runs once, and each gets its own answer."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.backends.base import TokenIds
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import Batch, Batcher
from emberd.worker.budget import Budget
from emberd.worker.inference import Running, answer, run_batches
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Sender
from emberd.worker.tokenizer import Tokens
from emberd.worker.work import BESIDE, decisive

DIMENSIONS = 4
BAD = ord("x")  # its vector is not a number


@dataclass
class Encoder:
    """Gives each text its tokens as a vector; notes what ran."""

    ran: list[str] = field(default_factory=list)

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Run at once."""
        self.ran += ["".join(map(chr, row[row > 0])) for row in token_ids]
        del mask
        rows = token_ids[:, [0] * DIMENSIONS].astype(np.float32) + np.arange(DIMENSIONS)
        rows[token_ids[:, 0] == BAD] = np.nan
        return rows.astype(np.float32)


@dataclass
class Worker:
    """A batcher and a model, run by hand."""

    encoder: Encoder = field(default_factory=Encoder)
    batcher: Batcher = field(default_factory=lambda: Batcher(Budget(4096)))
    sent: io.BytesIO = field(default_factory=io.BytesIO)
    requests: int = 0

    @property
    def loaded(self) -> Loaded:
        """The model."""
        tokenizer = SimpleNamespace(encode=lambda texts: list(map(tokens_of, texts)))
        spec = SimpleNamespace(normalize=False, dimensions=DIMENSIONS, matryoshka_norm=False)
        loaded: Any = SimpleNamespace(
            takes_pairs=False, is_sparse=False, encoder=self.encoder, tokenizer=tokenizer, spec=spec
        )
        return cast("Loaded", loaded)

    def ask(self, *texts: str, **options: Any) -> int:  # noqa: ANN401 - as `wire.Embed` has them
        """Queue a request; return its id."""
        self.requests += 1
        base: dict[str, Any] = {
            "prompt": "", "truncate": True, "dimensions": DIMENSIONS, "encoding": "raw"
        }  # fmt: skip
        request = wire.Embed(id=self.requests, texts=list(texts), **(base | options))
        found = self.batcher.add(request)
        while found:
            work, indices = found
            slice_ = [texts[index] for index in indices]
            self.batcher.add_tokens(work, indices, list(map(tokens_of, slice_)))
            found = self.batcher.next_slice() if work.wants_tokens else None
        return self.requests

    def begin(self) -> Batch:
        """Take a batch."""
        batch = self.batcher.next_batch(wait=False)
        assert batch
        return batch

    def end(self, batch: Batch) -> None:
        """Run it and answer."""
        running = Running(batch, self.loaded)
        running.finish()
        self.batcher.ran(batch)
        for failed in answer(running, self.loaded, Sender(self.sent), None):
            self.batcher.cancel(failed)

    def run(self) -> None:
        """Run everything that waits."""
        while batch := self.batcher.next_batch(wait=False):
            self.end(batch)

    def answers(self) -> dict[int, dict[int, Any]]:
        """Return the vector of each text, by request and index; a failure is an error's message."""
        self.sent.seek(0)
        found: dict[int, dict[int, Any]] = {}
        while received := wire.read(self.sent):
            frame = received.frame
            if isinstance(frame, wire.Failure):
                found.setdefault(frame.id, {})[-1] = frame.message
            if isinstance(frame, wire.Fragments):
                start = 0
                for index, size in zip(frame.indices, frame.sizes, strict=True):
                    part = received.payload[start : start + size]
                    as_list = orjson.loads(part) if part[:1] == b"[" else np.frombuffer(part, "<f4")
                    assert index not in found.setdefault(frame.id, {})
                    found[frame.id][index] = list(as_list)
                    start += size
        return found

    def frames(self, kind: type) -> list[Any]:
        """Return what was sent of one kind."""
        self.sent.seek(0)
        read = iter(lambda: wire.read(self.sent), None)
        return [received.frame for received in read if isinstance(received.frame, kind)]


def tokens_of(text: str) -> Tokens:
    return Tokens([ord(char) for char in text], len(text))


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    return [ord(text[0]) + place for place in range(dimensions)]


def test_a_text_that_waits_twice_runs_once_and_counts_for_everyone() -> None:
    worker = Worker()
    first = worker.ask("aa", "b", "aa", "aa")
    second = worker.ask("b", "c")

    worker.run()

    assert sorted(worker.encoder.ran) == ["aa", "b", "c"]
    assert worker.answers() == {
        first: {0: vector("a"), 1: vector("b"), 2: vector("a"), 3: vector("a")},
        second: {0: vector("b"), 1: vector("c")},
    }
    counted: Counter[int] = Counter()
    for fragments in worker.frames(wire.Fragments):
        counted[fragments.id] += fragments.tokens
    assert counted == {first: 7, second: 2}  # what their texts have
    assert sum(batch.tokens for batch in worker.frames(wire.Batch)) == 4  # what was computed


def test_who_asks_while_it_runs_gets_its_result() -> None:
    worker = Worker()
    first = worker.ask("a")
    batch = worker.begin()
    second, third = worker.ask("a"), worker.ask("b", "a")
    worker.end(batch)

    assert worker.answers() == {
        first: {0: vector("a")},
        second: {0: vector("a")},
        third: {1: vector("a")},
    }

    worker.run()
    assert worker.answers()[third] == {0: vector("b"), 1: vector("a")}
    assert worker.encoder.ran == ["a", "b"]


def test_a_text_that_has_run_runs_again() -> None:
    worker = Worker()
    for _ in range(2):
        worker.ask("a")
        worker.run()

    assert worker.encoder.ran == ["a", "a"]


def test_each_request_is_cut_normalized_and_encoded_for_itself() -> None:
    worker = Worker()
    whole = worker.ask("a")
    cut = worker.ask("a", dimensions=2, encoding="json")
    unit = worker.ask("a", normalize=True)

    worker.run()

    answers = worker.answers()
    assert worker.encoder.ran == ["a"]
    assert answers[whole] == {0: vector("a")}
    assert answers[cut] == {0: vector("a", 2)}
    assert np.linalg.norm(answers[unit][0]) == pytest.approx(1)


@pytest.mark.parametrize("runs", [False, True])
def test_when_the_first_gives_up_the_second_is_answered(runs: bool) -> None:
    worker = Worker()
    first, second = worker.ask("a", "b"), worker.ask("c", "a")
    batch = worker.begin() if runs else None
    worker.batcher.cancel(first)
    third = worker.ask("b", "a")
    if batch:
        worker.end(batch)
    worker.run()

    answers = worker.answers()
    assert answers[second] == {0: vector("c"), 1: vector("a")}
    assert answers[third] == {0: vector("b"), 1: vector("a")}
    assert Counter(worker.encoder.ran) == {"a": 1, "b": 1, "c": 1}


def test_a_text_of_requests_that_all_gave_up_does_not_run() -> None:
    worker = Worker()
    gone = [worker.ask("a", "a"), worker.ask("a")]
    for request in gone:
        worker.batcher.cancel(request)
    left = worker.ask("a")

    worker.run()

    assert worker.encoder.ran == ["a"]
    assert list(worker.answers()) == [left]


def test_a_text_that_fails_fails_everyone_who_asked_for_it_and_nobody_else() -> None:
    worker = Worker()
    bad = chr(BAD)
    first, beside, second = worker.ask("a", bad), worker.ask("a"), worker.ask(bad, "b")

    worker.run()

    answers = worker.answers()
    assert answers[beside] == {0: vector("a")}
    assert "text 1" in answers[first][-1]
    assert "text 0" in answers[second][-1]
    worker.ask("b")
    worker.run()  # what a failed request shared is not lost
    assert worker.answers()[4] == {0: vector("b")}


def test_a_query_does_not_wait_for_a_large_request_that_has_it_too() -> None:
    worker = Worker(batcher=Batcher(Budget(100)))
    texts = [chr(200 + n) * 50 for n in range(20)]
    worker.ask(*texts)
    query = worker.ask(texts[17])

    worker.end(worker.begin())

    assert worker.answers()[query] == {0: vector(texts[17])}
    worker.run()
    assert Counter(worker.encoder.ran) == dict.fromkeys(texts, 1)
    assert worker.answers()[1] == {n: vector(text) for n, text in enumerate(texts)}


@pytest.mark.parametrize(
    "other", [{"prompt": "query: "}, {"query": "q"}, {"text_tokens": 3}, {"cache": False}]
)
def test_what_may_have_another_vector_is_not_shared(other: dict[str, Any]) -> None:
    worker = Worker()
    worker.ask("a")
    worker.ask("a", **other)

    worker.run()

    assert worker.encoder.ran == ["a", "a"]


def test_every_field_of_a_request_is_known_to_decide_or_not() -> None:
    decides = {"prompt", "query", "text_tokens", "cache"}
    assert {each.name for each in fields(wire.Embed)} == decides | BESIDE
    assert not decides & BESIDE
    request = wire.Embed(
        id=1, texts=[], prompt="p", truncate=True, dimensions=1, encoding="raw", query="q"
    )
    assert decisive(request) == ("p", "q", None, True)


def test_streams_end_when_the_last_request_only_joins() -> None:
    worker = Worker()
    worker.batcher.streams = 3
    worker.ask("a", "b")
    worker.ask("b", "a")
    worker.batcher.close()

    run_batches(worker.batcher, worker.loaded, Sender(worker.sent), Budget(64))

    assert sorted(worker.encoder.ran) == ["a", "b"]
    assert {request: len(found) for request, found in worker.answers().items()} == {1: 2, 2: 2}


STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6),  # ask
        st.integers(1, 12),  # cancel that request
        st.sampled_from(["begin", "end"]),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from([None, 8]), st.integers(1, 6))
def test_whoever_does_not_give_up_is_answered_once(
    steps: Sequence[list[str] | int | str], row_tokens: int | None, budget: int
) -> None:
    worker = Worker(batcher=Batcher(Budget(budget)))
    worker.batcher.row_tokens = row_tokens
    asked: dict[int, list[str]] = {}
    cancelled: set[int] = set()
    running: list[Batch] = []
    for step in steps:
        if isinstance(step, list):
            asked[worker.ask(*step)] = step
        elif isinstance(step, int):
            worker.batcher.cancel(step)
            cancelled |= {step} & asked.keys()
        elif step == "begin" and (batch := worker.batcher.next_batch(wait=False)):
            at_once = [item for each in (*running, batch) for item in each.items]
            texts = [item.work.request.texts[item.index] for item in at_once]
            assert len(set(texts)) == len(texts)
            running.append(batch)
        elif step == "end" and running:
            worker.end(running.pop(0))
    for batch in running:
        worker.end(batch)
    worker.run()

    answers = worker.answers()
    for request, texts in asked.items():
        if request not in cancelled:
            assert answers[request] == {n: vector(text) for n, text in enumerate(texts)}
    assert not worker.batcher._works
    assert not list(worker.batcher._alike.values()) or not any(worker.batcher._alike.values())
