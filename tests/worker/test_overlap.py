"""The next batch starts before the last one's vectors are back, if the encoder can do that."""

import io
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from emberd.backends.base import TokenIds
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import Budget
from emberd.worker.inference import run_batches
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Sender
from emberd.worker.serving import Audit
from emberd.worker.tokenizer import Tokens
from tests.serving import wait_for
from tests.worker.distinct import text_of


class Encoder:
    """Records its calls; a row says how long its text is. Batches of 13 tokens fail."""

    dimensions, compute = 2, "f32"

    def __init__(self) -> None:
        self.story: list[str] = []

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Run at once."""
        del token_ids
        return np.stack([mask.sum(axis=1), np.ones(len(mask))], axis=1).astype(np.float32)


class Overlapping(Encoder):
    """One that can start."""

    def start(self, token_ids: TokenIds, mask: TokenIds) -> Callable[[], Matrix]:
        """Run when the rows are asked for."""
        length = token_ids.shape[1]
        self.story.append(f"start {length}")
        if length == 13:
            raise RuntimeError

        def finish() -> Matrix:
            self.story.append(f"finish {length}")
            if length == 17:
                raise RuntimeError
            return self.encode(token_ids, mask)

        return finish


class Packing(Encoder):
    """One that takes several texts in a row; if one has 13 tokens, everything fails."""

    packs = True

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Run at once."""
        self.story.append(f"{mask.max()} in {len(mask)} of {mask.shape[1]}")
        lengths = [(row == text).sum() for row in mask for text in np.unique(row[row > 0])]
        if 13 in token_ids:
            raise RuntimeError
        return np.array([[length, 1] for length in lengths], np.float32).reshape(-1, 2)


def run(encoder: Encoder, *lengths: int, budget: int = 1) -> list[wire.Frame]:
    """Queue a request for each length of text, the shortest first; return the answers."""
    batcher, stream = Batcher(Budget(budget)), io.BytesIO()
    batcher.row_tokens = 64 if isinstance(encoder, Packing) else None
    for number, length in enumerate(lengths):
        text = text_of(4 * length)
        request = wire.Embed(
            id=number, texts=[text], prompt="", truncate=True, dimensions=2, encoding="raw"
        )
        found = batcher.add(request)
        assert found
        batcher.add_tokens(*found, [Tokens([length] * length, length)])
    batcher.close()
    loaded: Any = SimpleNamespace(
        encoder=encoder,
        takes_pairs=False,
        is_sparse=False,
        tokenizer=SimpleNamespace(encode=lambda _: [Tokens([5] * 3, 3)]),
        spec=SimpleNamespace(normalize=False, dimensions=2),
    )
    run_batches(batcher, cast("Loaded", loaded), Sender(stream), Budget(1))
    stream.seek(0)
    answers: list[wire.Frame] = []
    while received := wire.read(stream):
        if isinstance(received.frame, wire.Fragments):
            assert np.frombuffer(received.payload, "<f4")[0] == lengths[received.frame.id]
        if not isinstance(received.frame, wire.Batch):
            answers.append(received.frame)
    return answers


def test_the_next_batch_starts_before_the_last_is_finished() -> None:
    encoder = Overlapping()

    answers = run(encoder, 1, 2, 3)

    assert encoder.story == ["start 1", "start 2", "finish 1", "start 3", "finish 2", "finish 3"]
    assert [cast("wire.Fragments", answer).id for answer in answers] == [0, 1, 2]


def test_one_that_cannot_start_runs_batch_after_batch() -> None:
    assert len(run(Encoder(), 1, 2, 3)) == 3


@pytest.mark.parametrize("bad", [13, 17])
def test_a_batch_that_fails_costs_its_neighbours_nothing(bad: int) -> None:
    answers = {cast("Any", answer).id: answer for answer in run(Overlapping(), 11, bad, 19)}

    only_the_middle_one_failed(answers)


def only_the_middle_one_failed(answers: dict[int, wire.Frame]) -> None:
    assert isinstance(answers[1], wire.Failure)
    assert isinstance(answers[0], wire.Fragments)
    assert isinstance(answers[2], wire.Fragments)


def test_texts_of_a_row_get_their_own_vectors() -> None:
    encoder = Packing()

    answers = run(encoder, 3, 5, 7, 40, budget=512)  # `run` compares the vectors

    assert all(isinstance(answer, wire.Fragments) for answer in answers)
    assert len(answers) == 4
    assert encoder.story == ["4 in 1 of 64"]


@pytest.mark.parametrize("bad", [0, 13])
def test_a_text_that_fails_in_a_row_costs_its_neighbours_nothing(bad: int) -> None:
    """A text without tokens has no place in a row, so vectors could be given to the wrong texts."""
    answers = {cast("Any", one).id: one for one in run(Packing(), 5, bad, 7, budget=512)}

    only_the_middle_one_failed(answers)


def test_a_look_at_what_it_computes_with_is_taken_once() -> None:
    looks: list[int] = []
    encoder = SimpleNamespace(audit=lambda: looks.append(1))
    audit = Audit(cast("Loaded", SimpleNamespace(encoder=encoder)), Sender(io.BytesIO()))

    audit.begin()
    audit.begin()

    wait_for(lambda: looks)
    assert looks == [1]


def test_a_look_that_fails_says_so_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def look() -> str | None:
        raise OSError

    encoder = SimpleNamespace(audit=look)
    stream = io.BytesIO()

    Audit(cast("Loaded", SimpleNamespace(encoder=encoder)), Sender(stream)).begin()

    wait_for(lambda: not any(thread.name == "audit" for thread in threading.enumerate()))
    assert "OSError" in capsys.readouterr().err
    assert frames_in(stream) == [wire.Audited()]


def test_the_server_is_told_once_that_a_look_found_nothing() -> None:
    for encoder in (SimpleNamespace(audit=lambda: None), SimpleNamespace()):
        stream = io.BytesIO()
        audit = Audit(cast("Loaded", SimpleNamespace(encoder=encoder)), Sender(stream))

        audit.begin()
        audit.begin()

        wait_for(lambda: not any(thread.name == "audit" for thread in threading.enumerate()))
        assert frames_in(stream) == [wire.Audited()]


def frames_in(stream: io.BytesIO) -> list[wire.Frame]:
    stream.seek(0)
    return [received.frame for received in iter(lambda: wire.read(stream), None)]
