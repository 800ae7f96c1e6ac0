"""Batches run through the model, and each request gets its part of the result.

Runs in the thread that loaded the model, and for an encoder with several streams in more threads,
one for each. A GPU gets the next batch before the vectors of the last one are back.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread

import numpy as np

from emberd import vectors
from emberd.backends.base import encode_alone
from emberd.errors import BadVectorError, EmberdError, WorkerError
from emberd.vectors import Matrix
from emberd.worker import sparse, wire
from emberd.worker.batcher import Batch, Batcher
from emberd.worker.budget import Budget
from emberd.worker.encoded import encoded
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Reply, Sender, failure, log
from emberd.worker.padding import pad, pad_rows
from emberd.worker.threads import worker_ends_with_this_thread
from emberd.worker.work import Item, Work

WARM_UP_TEXT = "ready when you are"


def run_batches(
    batcher: Batcher,
    loaded: Loaded,
    send: Sender,
    budget: Budget,
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Run batches until the queue is closed and empty; call `answered` after each."""

    def run() -> None:
        with worker_ends_with_this_thread("running batches"), suppress(BrokenPipeError):
            _run_batches(batcher, loaded, send, budget, answered)

    more = [
        Thread(target=run, name=f"stream {number}", daemon=True)
        for number in range(1, batcher.streams)
    ]
    for thread in more:
        thread.start()
    _run_batches(batcher, loaded, send, budget, answered)
    for thread in more:
        thread.join()


def _run_batches(
    batcher: Batcher,
    loaded: Loaded,
    send: Sender,
    budget: Budget,
    answered: Callable[[], None],
) -> None:
    overlaps = hasattr(loaded.encoder, "start")
    running: Running | None = None
    ended_s = 0.0
    is_warm = batcher.streams == 1  # whether this thread's stream has run a batch
    while True:
        batch = batcher.next_batch(wait=running is None)
        if not batch and not running:
            return
        following = Running(batch, loaded) if batch else None
        ending, running = (running, following) if overlaps else (following, None)
        if ending:
            ending.began_s = max(ending.began_s, ended_s)  # until then another batch had the model
            ending.finish()
            ended_s = time.monotonic()
            batcher.ran()
            beside = batcher.streams == 1 or not ending.batch.is_alone
            for failed in answer(ending, loaded, send, budget if beside and is_warm else None):
                batcher.cancel(failed)
            is_warm = is_warm or beside
            answered()


class Running:
    """A batch on its way through the model."""

    def __init__(self, batch: Batch, loaded: Loaded) -> None:
        self.batch = batch
        self.began_s = time.monotonic()
        self.model_s = 0.0
        self.rows: Matrix | None = None  # `(N, D)`; None if the backend raised an error
        self._finish = _start(batch, loaded)

    def finish(self) -> None:
        """Wait for the vectors."""
        self.rows = self._finish()
        self.model_s = time.monotonic() - self.began_s


def answer(ran: Running, loaded: Loaded, send: Sender, learning: Budget | None) -> list[int]:
    """Send each request its part of a batch; return the ids of requests that failed.

    A text that fails makes its own request fail, and no other. `learning` is told how long the
    batch took.
    """
    batch, began_s, model_s = ran.batch.items, ran.began_s, ran.model_s
    rows, failures = usable(ran.rows, batch, loaded)
    padded_tokens = ran.batch.padded_tokens
    if not failures and learning:
        learning.note(padded_tokens, model_s)
    replies: list[Reply] = [
        (
            wire.Batch(
                texts=len(batch),
                tokens=sum(len(item.tokens.ids) for item in batch),
                padded_tokens=padded_tokens,
                budget_tokens=ran.batch.budget_tokens,
                model_s=model_s,
            ),
            b"",
        )
    ]
    failed_ids = []
    places_of: defaultdict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(batch):
        places_of[id(item.work)].append(place)
    for places in places_of.values():
        work = batch[places[0]].work
        queue_s = max(0.0, (work.first_run_s or began_s) - work.arrived_s - work.tokenize_s)
        timing = {"tokenize_s": work.tokenize_s, "queue_s": queue_s, "model_s": model_s}
        items = [batch[place] for place in places]
        try:
            for place in places:
                if place in failures:
                    raise failures[place]
            replies.append(_fragments(work, items, rows[places], timing, loaded))
        except EmberdError as failed:
            replies.append((failure(work.request.id, failed), b""))
            failed_ids.append(work.request.id)
    send.together(replies)
    return failed_ids


def _fragments(
    work: Work, items: Sequence[Item], rows: Matrix, timing: dict[str, float], loaded: Loaded
) -> Reply:
    """Return the encoded vectors of one request's texts, `(N, D)`. Raises BadVectorError."""
    began_s, request = time.monotonic(), work.request
    out = vectors.truncate(rows, request.dimensions)
    if loaded.spec.normalize if request.normalize is None else request.normalize:
        out = vectors.normalize(out)
    if loaded.is_sparse:
        fragments = sparse.encode(out, pairs=request.pairs)
    else:
        fragments = encoded(out, request, loaded)
    frame = wire.Fragments(
        id=request.id,
        indices=[item.index for item in items],
        sizes=[len(fragment) for fragment in fragments],
        tokens=sum(len(item.tokens.ids) for item in items),
        truncated=[item.index for item in items if item.tokens.is_cut],
        encode_s=time.monotonic() - began_s,
        **timing,
    )
    return frame, b"".join(fragments)


def usable(
    rows: Matrix | None, batch: Sequence[Item], loaded: Loaded
) -> tuple[Matrix, dict[int, EmberdError]]:
    """Return `(N, D)`, and an error for each row that is not a usable vector.

    Such a text is first run again alone: it must not fail because of its neighbours.

    Raises:
        WorkerError: the model fails on any text, perhaps for lack of memory.
    """
    failures: dict[int, EmberdError] = {}
    alone = rows
    finite_rows = sparse.finite_rows if loaded.is_sparse else vectors.finite_rows
    bad = range(len(batch)) if rows is None else np.flatnonzero(~finite_rows(rows)).tolist()
    if rows is None:
        rows = np.zeros((len(batch), loaded.spec.dimensions), np.float32)
    for place in bad:
        length = len(batch[place].tokens.ids)
        by_itself = Batch([[batch[place]]], length)
        again = _start(by_itself, loaded)() if len(batch) > 1 else alone
        if again is None and not can_embed(loaded, length):
            raise WorkerError("The model fails on every text.")  # the next worker takes over
        if again is not None and finite_rows(again)[0]:
            rows[place] = again[0]
        else:
            failures[place] = BadVectorError(
                f"The model gave no usable vector for text {batch[place].index}.",
                hint="Leave this text out, or try `compute: f32` for this model.",
            )
    return rows, failures


def can_embed(loaded: Loaded, length: int | None = None) -> bool:
    """Embed a harmless text, cut or repeated to `length` tokens; say whether that worked.

    Also the warm-up of a model that was loaded before anybody needed it: on the first run the
    engine repacks weights and builds kernels.
    """
    try:
        if loaded.takes_pairs:
            arrays = pad(loaded.tokenizer.encode_pairs(WARM_UP_TEXT, [WARM_UP_TEXT]), pairs=True)
        else:
            arrays = pad(loaded.tokenizer.encode([WARM_UP_TEXT]))
        shape = (1, length or arrays[0].shape[1])
        encode_alone(loaded.encoder, *(np.resize(each, shape) for each in arrays))
    except Exception as error:  # noqa: BLE001 - a backend may raise anything
        log(f"a harmless text failed: {type(error).__name__}")
        return False
    return True


def _start(batch: Batch, loaded: Loaded) -> Callable[[], Matrix | None]:
    """Pad and start a batch.

    Returns:
        A function that waits for the vectors, `(N, D)`, or returns None if the backend raised.
    """
    items = batch.items
    rows = [[item.tokens for item in row] for row in batch.rows]
    arrays = pad_rows(rows, batch.width, pairs=loaded.takes_pairs)
    begin = getattr(loaded.encoder, "start", None)
    encode = loaded.encoder.encode
    if batch.is_alone:
        encode = partial(encode_alone, loaded.encoder)

    def note(error: Exception) -> None:
        shape = " x ".join(map(str, arrays[0].shape))
        log(f"a batch of {shape} tokens failed: {type(error).__name__}")

    try:
        wait = begin(*arrays) if begin else partial(encode, *arrays)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises costs this batch only
        note(error)
        return lambda: None

    def finish() -> Matrix | None:
        try:
            return _without_cut_columns(_one_each(wait(), items), items, loaded)
        except Exception as error:  # noqa: BLE001 - as above
            note(error)
            return None

    return finish


def _one_each(rows: Matrix, batch: Sequence[Item]) -> Matrix:
    """Raise ValueError unless there is one vector for each text."""
    if len(rows) != len(batch):
        raise ValueError(f"{len(rows)} vectors for {len(batch)} texts")
    return rows


def _without_cut_columns(rows: Matrix, batch: Sequence[Item], loaded: Loaded) -> Matrix:
    """Return `(N, D)` with zeros for what is cut off, which must not make a vector look usable."""
    cut = [n for n, item in enumerate(batch) if item.work.request.dimensions < rows.shape[1]]
    if cut:
        rows = rows.copy()
        if loaded.spec.matryoshka_norm:
            rows[cut] = vectors.layer_norm(rows[cut])
        for place in cut:
            rows[place, batch[place].work.request.dimensions :] = 0
    return rows
