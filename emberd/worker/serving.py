"""The worker's life after Start: load, then batches until stdin closes."""

import os
import sys
from collections.abc import Sequence
from threading import Lock, Thread
from typing import BinaryIO

import numpy as np

from emberd import vectors
from emberd.errors import BadVectorError, EmberdError, TextTooLongError
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import Batcher, Item
from emberd.worker.identity import pad
from emberd.worker.loading import Loaded, load
from emberd.worker.tokenizer import Tokenizer, Tokens

BATCH_TOKENS = 512  # padded; the fastest and the fairest on two cores, about 32 ms for MiniLM


class Sender:
    """Writes frames whole, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def __call__(self, frame: wire.Frame, payload: bytes = b"") -> None:
        """Write and flush."""
        packed = wire.pack(frame, payload)
        with self._lock:
            self._stream.write(packed)
            self._stream.flush()


def serve(start: wire.Start, stdin: BinaryIO, send: Sender) -> None:
    """Load the model and answer until the server closes stdin and the queue is empty.

    Raises:
        EmberdError: the model cannot be loaded.
        BrokenPipeError: the server is gone.
    """
    inbox = Inbox(stdin, Batcher(BATCH_TOKENS), send)
    Thread(target=inbox.run, name="inbox", daemon=True).start()
    loaded = load(start, send)
    inbox.open(loaded.tokenizer)
    send(loaded.ready)
    while batch := inbox.batcher.next_batch():
        for failed in run_batch(batch, loaded, send):
            inbox.batcher.cancel(failed)


class Inbox:
    """The reading thread: frames in, tokenized requests into the queue."""

    def __init__(self, stdin: BinaryIO, batcher: Batcher, send: Sender) -> None:
        self.batcher = batcher
        self._stdin = stdin
        self._send = send
        self._tokenizer: Tokenizer | None = None

    def open(self, tokenizer: Tokenizer) -> None:
        """Accept requests from now on; the server sends none before it was told Ready."""
        self._tokenizer = tokenizer

    def run(self) -> None:
        """Read until stdin closes. Without a model yet, that ends the process at once."""
        try:
            while received := wire.read(self._stdin):
                if isinstance(received.frame, wire.Embed):
                    self._queue(received.frame)
                elif isinstance(received.frame, wire.Cancel):
                    self.batcher.cancel(received.frame.id)
        except BaseException as error:  # noqa: BLE001 - a panic in the tokenizer is no Exception
            log(f"reading requests failed: {type(error).__name__}")
            os._exit(70)  # without this thread nobody is answered; the server starts another worker
        if self._tokenizer is None:
            os._exit(0)  # in the middle of a download or load that nobody waits for
        self.batcher.close()

    def _queue(self, request: wire.Embed) -> None:
        if self._tokenizer is None:
            return
        try:
            tokens = self._tokenizer.encode([request.prompt + text for text in request.texts])
            if not request.truncate:
                refuse_cut(tokens)
        except EmberdError as error:
            self._send(_failure(request.id, error))
        except Exception as error:  # noqa: BLE001 - one request's trouble, never the worker's
            log(f"tokenizing failed: {type(error).__name__}")
            self._send(_failure(request.id, EmberdError("The texts could not be tokenized.")))
        else:
            self.batcher.add(request, tokens)


def refuse_cut(tokens: Sequence[Tokens]) -> None:
    """Raise `TextTooLongError` for the first text that is longer than the model takes."""
    for index, text in enumerate(tokens):
        if text.is_cut:
            raise TextTooLongError(
                f"Text {index} has {text.uncut} tokens and the model takes {len(text.ids)}.",
                hint="Split the text, or leave `truncate` true.",
            )


def run_batch(batch: Sequence[Item], loaded: Loaded, send: Sender) -> list[int]:
    """Embed a batch and send each request its part; return the ids of the requests that failed.

    A text that fails fails its own request and no other.
    """
    rows, failures = embed(batch, loaded)
    failed_ids = []
    for work in {id(item.work): item.work for item in batch}.values():
        request = work.request
        mine = [place for place, item in enumerate(batch) if item.work is work]
        failed = next((failures[place] for place in mine if place in failures), None)
        if failed:
            send(_failure(request.id, failed))
            failed_ids.append(request.id)
            continue
        out = vectors.truncate(rows[mine], request.dimensions)
        if loaded.spec.normalize:
            out = vectors.normalize(out)
        fragments = vectors.encode(out, request.encoding)
        items = [batch[place] for place in mine]
        send(
            wire.Vectors(
                id=request.id,
                indices=[item.index for item in items],
                sizes=[len(fragment) for fragment in fragments],
                tokens=sum(len(item.tokens.ids) for item in items),
                truncated=[item.index for item in items if item.tokens.is_cut],
            ),
            b"".join(fragments),
        )
    return failed_ids


def embed(batch: Sequence[Item], loaded: Loaded) -> tuple[Matrix, dict[int, EmberdError]]:
    """Return `(B, D)` and an error for each row that is no usable vector.

    Such a row is run again alone first: it must not fail for what its neighbours did.
    """
    rows = _encode(batch, loaded)
    failures: dict[int, EmberdError] = {}
    bad = range(len(batch)) if rows is None else np.flatnonzero(~vectors.finite_rows(rows)).tolist()
    if rows is None:
        rows = np.zeros((len(batch), loaded.spec.dimensions), np.float32)
    for place in bad:
        again = _encode([batch[place]], loaded) if len(batch) > 1 else None
        if again is not None and vectors.finite_rows(again)[0]:
            rows[place] = again[0]
        else:
            failures[place] = BadVectorError(
                f"The model gave no usable vector for text {batch[place].index}.",
                hint="Leave this text out, or try `compute: f32` for this model.",
            )
    return rows, failures


def _encode(batch: Sequence[Item], loaded: Loaded) -> Matrix | None:
    """Pad and run; None when the backend raised."""
    token_ids, mask = pad([item.tokens for item in batch])
    try:
        rows = loaded.encoder.encode(token_ids, mask)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises costs this batch only
        shape = " x ".join(map(str, token_ids.shape))
        log(f"a batch of {shape} tokens failed: {type(error).__name__}")
        return None
    if any(item.work.request.dimensions < rows.shape[1] for item in batch):
        rows = rows.copy()
        for row, item in enumerate(batch):  # what is cut off must not make a vector look usable
            rows[row, item.work.request.dimensions :] = 0
    return rows


def _failure(request_id: int, error: EmberdError) -> wire.Failure:
    return wire.Failure(id=request_id, code=error.code, message=error.message, hint=error.hint)


def log(message: str) -> None:
    """One line to the server's log. Never a text, a token or a vector."""
    sys.stderr.write(f"emberd worker {os.getpid()}: {message}\n")
