"""Late chunking in the worker: texts that are read whole, and are alone in their batches."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from emberd.backends.base import TokenIds
from emberd.errors import NoTokensError
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import Batch, Batcher
from emberd.worker.budget import Budget
from emberd.worker.inbox import Inbox
from emberd.worker.inference import Running, answer
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Sender
from emberd.worker.tokenizer import Tokenizer, Tokens
from emberd.worker.work import Item, Work
from tests.backends.references import TINY

TEXT = "hello world, hello"
SPANS = [(0, 5), (6, 18)]


def request(number: int, *texts: str, late: bool = True, cache: bool = False) -> wire.Embed:
    return wire.Embed(
        id=number,
        texts=list(texts),
        prompt="",
        truncate=True,
        dimensions=2,
        encoding="json",
        cache=cache,
        spans=[[*SPANS] for _ in texts] if late else [],
    )


def receive(
    minilm: Path, *frames: wire.Frame, pools_chunks: bool = True
) -> tuple[list[list[int]], dict[int, str]]:
    """Let an inbox read frames that came at once: the requests of each batch, and refusals."""
    out = io.BytesIO()
    batcher = Batcher(Budget(4096))
    inbox = Inbox(cast("Any", io.BytesIO(b"".join(map(wire.encode, frames)))), batcher, Sender(out))
    spec: Any = SimpleNamespace(token_ids=None)
    inbox.open(Tokenizer(minilm, 16), spec, pools_chunks=pools_chunks)
    inbox.run()
    batches = []
    while batch := batcher.next_batch(wait=False):
        items = batch.items
        batches.append(sorted(ask.work.request.id for item in items for ask in item.asked))
        assert all(bool(item.tokens.chunks) == bool(item.work.request.spans) for item in items)
    out.seek(0)
    refused = {}
    while received := wire.read(out):
        assert isinstance(received.frame, wire.Failure)
        refused[received.frame.id] = received.frame.code
    return batches, refused


def test_each_text_is_alone_in_its_batch_and_shared_with_nobody(minilm: Path) -> None:
    frames = [
        request(1, TEXT, TEXT),
        request(2, TEXT, TEXT, late=False),
        request(3, TEXT, late=False, cache=True),
        request(4, TEXT, cache=True),
    ]

    batches, refused = receive(minilm, *frames)

    assert sorted(batches) == [[1], [1], [2, 2, 3], [4]]
    assert refused == {}


def test_what_is_too_long_or_has_nothing_is_refused_and_costs_others_nothing(minilm: Path) -> None:
    frames = [
        request(1, TEXT, "word " * 20),
        request(2, "word " * 3_000),
        request(3, "hello"),  # which does not reach the second chunk
        request(4, TEXT),
    ]

    batches, refused = receive(minilm, *frames)

    assert batches == [[4]]
    assert refused == {1: "text_too_long", 2: "text_too_long", 3: "no_tokens"}


def test_a_backend_that_cannot_is_named_as_the_reason(minilm: Path) -> None:
    frames = [request(1, TEXT), request(2, TEXT, late=False)]

    assert receive(minilm, *frames, pools_chunks=False) == ([[2]], {1: "bad_option"})


def own(tokenizer: Tokenizer, *texts: str) -> list[list[int]]:
    """Return the tokens of texts, without the special ones around them."""
    return [list(tokens.ids[1:-1]) for tokens in tokenizer.encode(texts)]


def test_chunks_of_a_text_with_much_white_space(minilm: Path) -> None:
    """It is longer than what is tokenized for a model that takes so few tokens."""
    text = "hello" + " " * 5_000 + "world 火\u200b"

    tokenizer = Tokenizer(minilm, 16)
    tokens = tokenizer.encode_chunks(text, "say ", [(0, 5), (5_000, 5_012)])

    chunks = [list(tokens.ids[first:end]) for first, end in tokens.chunks]
    assert chunks == own(tokenizer, "hello", "world 火")


def test_a_chunk_without_tokens_is_refused(minilm: Path) -> None:
    with pytest.raises(NoTokensError, match="characters 6 to 7"):
        Tokenizer(minilm, 16).encode_chunks("hello \u200b", "", [(0, 5), (6, 7)])


def test_tokens_that_are_left_out_move_no_chunk() -> None:
    """Models of known tokens only; unknown ones count for nothing, however many there are."""
    folder = TINY / "model2vec"
    text = "火 " * 40 + "ember and ash"
    at = text.index("ash")

    tokens = Tokenizer(folder, 16, only_known=True).encode_chunks(text, "", [(at, at + 3)])

    [(first, end)] = tokens.chunks
    alone = Tokenizer(folder, 16, only_known=True).encode(["ash"])[0]
    assert list(tokens.ids[first:end]) == list(alone.ids)


class Encoder:
    """Gives chunks these vectors, and every text (1, 1); raises without any."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = rows

    def encode(self, token_ids: TokenIds, mask: TokenIds, chunks: Any = None) -> Matrix:  # noqa: ANN401
        """Run at once."""
        del mask
        if chunks is None:
            return np.ones((len(token_ids), 2), np.float32)
        if not self.rows:
            raise RuntimeError
        return np.array(self.rows, np.float32)


@pytest.mark.parametrize(
    ("rows", "payload"),
    [
        ([(3, 4), (0, 2)], b"[0.6,0.8],[0.0,1.0]"),
        ([(3, 4), (np.nan, 2)], None),
        ([(3, 4), (0, 0)], None),
        ([(3, 4)], None),  # one is missing
        ([], None),
    ],
)
def test_a_text_has_a_vector_for_each_chunk_or_fails(
    rows: list[tuple[float, float]], payload: bytes | None
) -> None:
    out = io.BytesIO()
    tokenizer = SimpleNamespace(encode=lambda _: [Tokens([5], 1)])
    spec = SimpleNamespace(dimensions=2, matryoshka_norm=False, normalize=True)
    loaded = SimpleNamespace(
        takes_pairs=False, is_sparse=False, encoder=Encoder(rows), tokenizer=tokenizer, spec=spec
    )
    work = Work(request(7, TEXT), 0.0)
    item = Item(work, 0, Tokens([1, 2, 3, 4], 4, chunks=[(1, 2), (2, 4)]))
    ran = Running(Batch([[item]], 4), cast("Loaded", loaded))
    ran.finish()

    failed = answer(ran, cast("Loaded", loaded), Sender(out), None)

    out.seek(0)
    said, received = wire.read(out), wire.read(out)
    assert said
    assert received
    assert isinstance(said.frame, wire.Batch)
    if payload is None:
        assert failed == [7]
        assert isinstance(received.frame, wire.Failure)
        assert received.frame.code == "bad_vector"
    else:
        assert failed == []
        assert isinstance(received.frame, wire.Fragments)
        assert (received.frame.indices, received.frame.tokens) == ([0], 4)
        assert received.frame.sizes == [len(payload)]
        assert received.payload == payload
