"""Batches run through the model, and each request gets its part of the result.

Runs in the thread that loaded the model, and for an encoder with several streams in more threads,
one for each. A GPU gets the next batch before the vectors of the last one are back.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import numpy as np

from emberd import vectors
from emberd.backends.base import encode_alone
from emberd.errors import BadVectorError, EmberdError, WorkerError
from emberd.vectors import Matrix
from emberd.worker import sparse, wire
from emberd.worker.batcher import Batch, Batcher
from emberd.worker.budget import Budget
from emberd.worker.encoded import as_bytes
from emberd.worker.loading import Loaded
from emberd.worker.outbox import Reply, Sender, failure, log
from emberd.worker.padding import pad, pad_rows
from emberd.worker.threads import worker_ends_with_this_thread
from emberd.worker.work import Ask, Item, Work

Keep = Callable[[Batch, Matrix], None]
"""Told what a batch gave: `(N, D)`, as the model gave it; some rows may not be usable."""

WARM_UP_TEXT = "ready when you are"


def run_batches(
    batcher: Batcher,
    loaded: Loaded,
    send: Sender,
    budget: Budget,
    answered: Callable[[], None] = lambda: None,
    keep: Keep | None = None,
) -> None:
    """Run batches until the queue is closed and empty; call `answered` and `keep` after each."""

    def run() -> None:
        with worker_ends_with_this_thread("running batches"), suppress(BrokenPipeError):
            _run_batches(batcher, loaded, send, budget, answered, keep)

    more = [
        Thread(target=run, name=f"stream {number}", daemon=True)
        for number in range(1, batcher.streams)
    ]
    for thread in more:
        thread.start()
    _run_batches(batcher, loaded, send, budget, answered, keep)
    for thread in more:
        thread.join()


def _run_batches(
    batcher: Batcher,
    loaded: Loaded,
    send: Sender,
    budget: Budget,
    answered: Callable[[], None],
    keep: Keep | None,
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
            batcher.ran(ending.batch)
            beside = batcher.streams == 1 or not ending.batch.is_alone
            for failed in answer(ending, loaded, send, budget if beside and is_warm else None):
                batcher.cancel(failed)
            is_warm = is_warm or beside
            if keep and ending.rows is not None and ending.rows.ndim == 2:  # none of chunks
                keep(ending.batch, ending.rows)
            answered()


class Running:
    """A batch on its way through the model."""

    def __init__(self, batch: Batch, loaded: Loaded) -> None:
        self.batch = batch
        self.began_s = time.monotonic()
        self.model_s = 0.0
        # `(N, D)`, or `(1, N, D)` of a text with N chunks; None if the backend raised an error
        self.rows: Matrix | None = None
        self._finish = _start(batch, loaded)

    def finish(self) -> None:
        """Wait for the vectors."""
        self.rows = self._finish()
        self.model_s = time.monotonic() - self.began_s


def answer(ran: Running, loaded: Loaded, send: Sender, learning: Budget | None) -> list[int]:
    """Send each request its part of a batch; return the ids of requests that failed.

    A text that fails makes the requests fail that asked for it, and no other. `learning` is told
    how long the batch took.
    """
    batch, began_s, model_s = ran.batch.items, ran.began_s, ran.model_s
    asks = everyone(batch)
    find = _usable_chunks if batch[0].tokens.chunks else usable
    rows, failures = find(ran.rows, batch, loaded)
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
    for place, ask in enumerate(asks):
        places_of[id(ask.work)].append(place)
    for places in places_of.values():
        work = asks[places[0]].work
        queue_s = max(0.0, (work.first_run_s or began_s) - work.arrived_s - work.tokenize_s)
        timing = {"tokenize_s": work.tokenize_s, "queue_s": queue_s, "model_s": model_s}
        mine = [asks[place] for place in places]
        try:
            for place in places:
                if place in failures:
                    raise failures[place]
            replies.append(fragments(work, mine, rows[places], timing, loaded))
        except EmberdError as failed:
            replies.append((failure(work.request.id, failed), b""))
            failed_ids.append(work.request.id)
    send.together(replies)
    return failed_ids


def fragments(
    work: Work, items: Sequence[Ask], rows: Matrix, timing: Mapping[str, Any], loaded: Loaded
) -> Reply:
    """Return the encoded vectors of one request's texts, `(N, D)`; see `as_asked`.

    Of a text with chunks, they are theirs, `(1, N, D)`. `timing` is the rest of the frame. Raises
    BadVectorError.
    """
    began_s, request = time.monotonic(), work.request
    if request.spans:
        rows = rows[0]
    out = vectors.truncate(rows, request.dimensions)
    if loaded.spec.normalize if request.normalize is None else request.normalize:
        out = vectors.normalize(out)
    if loaded.is_sparse:
        encoded = sparse.encode(out, pairs=request.pairs)
    else:
        encoded = as_bytes(out, request, loaded)
    if request.spans:
        encoded = [b",".join(encoded)]
    frame = wire.Fragments(
        id=request.id,
        indices=[item.index for item in items],
        sizes=[len(fragment) for fragment in encoded],
        tokens=sum(len(item.tokens.ids) for item in items),
        truncated=[item.index for item in items if item.tokens.is_cut],
        encode_s=time.monotonic() - began_s,
        **timing,
    )
    return frame, b"".join(encoded)


def everyone(batch: Sequence[Item]) -> Sequence[Ask]:
    """Return who gets the results of a batch, text by text."""
    if not any(item.others for item in batch):
        return batch
    return [ask for item in batch for ask in item.asked]


def usable(
    rows: Matrix | None, batch: Sequence[Item], loaded: Loaded
) -> tuple[Matrix, dict[int, EmberdError]]:
    """Return a row for everyone who asked for a text, as they asked: `(N, D)` -> `(M, D)`.

    With it comes an error for each that is not a usable vector. Such a text is first run again
    alone: it must not fail because of its neighbours. `rows` get what that gave.

    Raises:
        WorkerError: the model fails on any text, perhaps for lack of memory.
    """
    asks = everyone(batch)
    if len(asks) == len(batch):
        places: Sequence[int] = range(len(batch))
    else:
        places = [place for place, item in enumerate(batch) for _ in item.asked]
    computed = np.zeros((len(batch), loaded.spec.dimensions), np.float32) if rows is None else rows
    out = computed[places] if len(asks) > len(batch) else computed
    out = as_asked(out, asks, loaded)
    failures: dict[int, EmberdError] = {}
    finite_rows = sparse.finite_rows if loaded.is_sparse else vectors.finite_rows
    again: dict[int, Matrix | None] = {}
    bad = np.arange(len(asks)) if rows is None else np.flatnonzero(~finite_rows(out))
    for number in bad.tolist():
        place = places[number]
        if place not in again:
            again[place] = _alone(batch[place], loaded) if len(batch) > 1 else rows
            if again[place] is None and not can_embed(loaded, len(batch[place].tokens.ids)):
                raise WorkerError("The model fails on every text.")  # the next worker takes over
        row = again[place]
        if row is not None:
            computed[place] = row[0]
            row = as_asked(row, [asks[number]], loaded)
        if row is not None and finite_rows(row)[0]:
            out[number] = row[0]
        else:
            failures[number] = BadVectorError(
                f"The model gave no usable vector for text {asks[number].index}.",
                hint="Leave this text out, or try `compute: f32` for this model.",
            )
    return out, failures


def _usable_chunks(
    rows: Matrix | None, batch: Sequence[Item], loaded: Loaded
) -> tuple[Matrix, dict[int, EmberdError]]:
    """Do what `usable` does, for the only text of a batch and its N chunks: `(1, N, D)`."""
    [item] = batch
    if rows is not None:
        out = as_asked(rows[0], [item] * len(item.tokens.chunks), loaded)
        if vectors.finite_rows(out).all():
            return out[None], {}
    elif not can_embed(loaded, len(item.tokens.ids)):
        raise WorkerError("The model fails on every text.")  # the next worker takes over
    error = BadVectorError(
        "The model gave no usable vector for a chunk.",
        hint="Embed the texts one by one to find it, or try `compute: f32` for this model.",
    )
    return np.zeros((1, 1, 1), np.float32), {0: error}


def _alone(item: Item, loaded: Loaded) -> Matrix | None:
    """Run a text alone: `(1, D)`; None if the backend raised."""
    return _start(Batch([[item]], len(item.tokens.ids)), loaded)()


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
        A function that waits for the vectors, see `Running`, or returns None if the backend raised.
    """
    items = batch.items
    rows = [[item.tokens for item in row] for row in batch.rows]
    arrays = pad_rows(rows, batch.width, pairs=loaded.takes_pairs)
    begin = getattr(loaded.encoder, "start", None)
    encode = loaded.encoder.encode
    if batch.is_alone:
        encode = partial(encode_alone, loaded.encoder)

    chunks = items[0].tokens.chunks
    more: dict[str, Any] = {"chunks": np.array(chunks, np.int32)} if chunks else {}

    def note(error: Exception) -> None:
        shape = " x ".join(map(str, arrays[0].shape))
        log(f"a batch of {shape} tokens failed: {type(error).__name__}")

    try:
        wait = begin(*arrays, **more) if begin else partial(encode, *arrays, **more)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises costs this batch only
        note(error)
        return lambda: None

    def finish() -> Matrix | None:
        try:
            return _one_each(wait(), items)
        except Exception as error:  # noqa: BLE001 - as above
            note(error)
            return None

    return finish


def _one_each(rows: Matrix, batch: Sequence[Item]) -> Matrix:
    """Raise ValueError unless there is one vector for each text, or for each chunk of one."""
    chunks = len(batch[0].tokens.chunks)
    if len(rows) != (chunks or len(batch)):
        raise ValueError(f"{len(rows)} vectors for {chunks or len(batch)} texts")
    return rows[None] if chunks else rows


def as_asked(rows: Matrix, asks: Sequence[Ask], loaded: Loaded) -> Matrix:
    """Return `(N, D)` with zeros for what is cut off, which must not make a vector look usable."""
    cut = [n for n, ask in enumerate(asks) if ask.work.request.dimensions < rows.shape[1]]
    if cut:
        rows = rows.copy()
        if loaded.spec.matryoshka_norm:
            rows[cut] = vectors.layer_norm(rows[cut])
        for place in cut:
            rows[place, asks[place].work.request.dimensions :] = 0
    return rows
