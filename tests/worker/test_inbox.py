"""What has come together is tokenized together; one bad request costs the others nothing."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import Budget
from emberd.worker.inbox import Inbox
from emberd.worker.outbox import Sender
from emberd.worker.tokenizer import Tokenizer, Tokens


class Recording:
    """A tokenizer that notes its calls; a text "panic" makes it fail."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Tokenize."""
        self.calls.append((prompt, list(texts)))
        if "panic" in texts:
            raise BaseException  # noqa: TRY002 - as the library's panics are
        return self._tokenizer.encode(texts, prompt)


def request(number: int, *texts: str, prompt: str = "", truncate: bool = True) -> wire.Embed:
    return wire.Embed(
        id=number, texts=list(texts), prompt=prompt, truncate=truncate, dimensions=4, encoding="raw"
    )


def receive(
    minilm: Path, *frames: wire.Frame, only_known: bool = False
) -> tuple[Recording, Batcher, list[wire.Frame]]:
    """Let an inbox read frames that have come at once; return what it has answered."""
    out = io.BytesIO()
    batcher = Batcher(Budget(4096))
    tokenizer = Recording(Tokenizer(minilm, 16, only_known=only_known))
    inbox = Inbox(cast("Any", io.BytesIO(b"".join(map(wire.encode, frames)))), batcher, Sender(out))
    inbox.open(cast("Tokenizer", tokenizer), cast("Any", type("Spec", (), {"token_ids": None})))
    inbox.run()
    out.seek(0)
    answers = []
    while received := wire.read(out):
        answers.append(received.frame)
    return tokenizer, batcher, answers


def waiting(batcher: Batcher) -> list[int]:
    """Return the ids of the requests in the next batch, which has all that can run."""
    batch = batcher.next_batch(wait=False)
    asks = [ask for item in batch.items for ask in item.asked] if batch else []
    return sorted({ask.work.request.id for ask in asks})


def test_requests_that_came_together_are_tokenized_together_by_prompt(minilm: Path) -> None:
    tokenizer, batcher, _ = receive(
        minilm, request(1, "a", "b"), request(2, "c", prompt="query: "), request(3, "d")
    )

    assert tokenizer.calls == [("", ["a", "b", "d"]), ("query: ", ["c"])]
    assert waiting(batcher) == [1, 2, 3]


def test_a_request_that_cannot_be_tokenized_costs_its_neighbours_nothing(minilm: Path) -> None:
    _, batcher, answers = receive(minilm, request(1, "a"), request(2, "panic"), request(3, "d"))

    assert [cast("wire.Failure", answer).id for answer in answers] == [2]
    assert waiting(batcher) == [1, 3]


def test_a_text_that_must_not_be_cut_fails_its_own_request(minilm: Path) -> None:
    long = "a b c d e f g h i j k l m n o p q r s t"
    _, batcher, answers = receive(
        minilm, request(1, long), request(2, "a", long, truncate=False), request(3, long)
    )

    assert [(cast("wire.Failure", one).id, cast("wire.Failure", one).code) for one in answers] == [
        (2, "text_too_long")
    ]
    assert waiting(batcher) == [1, 3]


@pytest.mark.parametrize("nothing", ["", " ", "\U00013000 \U00013000"])  # hieroglyphs are [UNK]
def test_a_text_without_a_known_token_fails_its_own_request_and_never_runs(
    nothing: str, minilm: Path
) -> None:
    frames = request(1, "a", "b"), request(2, "a", nothing, "b"), request(3, "c")

    _, batcher, answers = receive(minilm, *frames, only_known=True)

    [failed] = [cast("wire.Failure", answer) for answer in answers]
    assert (failed.id, failed.code) == (2, "no_tokens")
    assert "Text 1 " in failed.message
    assert waiting(batcher) == [1, 3]


def test_an_empty_text_is_answered_by_what_has_special_tokens(minilm: Path) -> None:
    _, batcher, answers = receive(minilm, request(1, "", "a"))

    assert answers == []
    assert waiting(batcher) == [1]


def test_equal_texts_are_tokenized_once(minilm: Path) -> None:
    frames = request(1, "a", "b", "a"), request(2, "b", "a"), request(3, "a", prompt="query: ")

    tokenizer, batcher, _ = receive(minilm, *frames)

    assert tokenizer.calls == [("", ["a", "b"]), ("query: ", ["a"])]
    batch = batcher.next_batch(wait=False)
    assert batch
    asked = [
        [(ask.work.request.id, ask.index) for ask in item.asked]
        for item in sorted(batch.items, key=lambda item: len(item.asked), reverse=True)
    ]
    assert asked == [[(1, 0), (1, 2), (2, 1)], [(1, 1), (2, 0)], [(3, 0)]]


def test_a_request_may_want_every_text_for_itself(minilm: Path) -> None:
    alone = replace(request(2, "a", "a"), cache=False)

    tokenizer, batcher, _ = receive(minilm, request(1, "a", "a"), alone)

    assert tokenizer.calls == [("", ["a"]), ("", ["a", "a"])]
    batch = batcher.next_batch(wait=False)
    assert batch
    assert sorted(len(item.asked) for item in batch.items) == [1, 1, 2]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_frames_may_come_in_pieces(minilm: Path, size: int) -> None:
    class Pieces(io.BytesIO):
        def read1(self, _size: int | None = -1, /) -> bytes:
            return self.read(size)

    sent: list[wire.Frame] = [request(1, "a"), request(2, "b"), wire.Cancel(id=1)]
    frames = b"".join(wire.encode(frame) for frame in sent)
    batcher = Batcher(Budget(4096))
    inbox = Inbox(cast("Any", Pieces(frames)), batcher, Sender(io.BytesIO()))
    inbox.open(Tokenizer(minilm, 16), cast("Any", type("Spec", (), {"token_ids": None})))

    inbox.run()

    assert waiting(batcher) == [2]
