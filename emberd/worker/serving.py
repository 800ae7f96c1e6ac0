"""The worker's life after Start: load, then batches until stdin closes."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from threading import Lock, Thread, get_native_id
from typing import BinaryIO

import numpy as np
import orjson

from emberd import vectors
from emberd.errors import BadVectorError, EmberdError, TextTooLongError, WorkerError
from emberd.registry.spec import ModelSpec
from emberd.vectors import Matrix
from emberd.worker import wire
from emberd.worker.batcher import Batch, Batcher, Item, Work
from emberd.worker.budget import Budget
from emberd.worker.encodings import Decoder
from emberd.worker.loading import Loaded, Phases, load
from emberd.worker.padding import pad, pad_rows
from emberd.worker.tokenizer import Tokenizer, Tokens

LOW_PRIORITY = 10  # niceness: a tenth of a busy core
DAMAGED = 71  # exit code
WARM_UP_AFTER_S = 0.1
WARM_UP_TEXT = "ready when you are"


class Sender:
    """Writes frames whole, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def __call__(self, frame: wire.Frame, payload: bytes = b"", *, more: bool = False) -> None:
        """Write, and flush unless there is `more` to come at once."""
        packed = wire.pack(frame, payload)
        with self._lock:
            self._stream.write(packed)
            if not more:
                self._stream.flush()


def serve(start: wire.Start, began_s: float, stdin: BinaryIO, send: Sender) -> None:
    """Load the model and answer until the server closes stdin and the queue is empty.

    `began_s`: when this process began, on the monotonic clock.

    Raises:
        EmberdError: the model cannot be loaded.
        BrokenPipeError: the server is gone.
    """
    budget = Budget()
    inbox = Inbox(stdin, Batcher(budget), send)
    Thread(target=inbox.run, name="inbox", daemon=True).start()
    loaded = load(start, Phases(start.spawned_s, began_s), send)
    if getattr(loaded.encoder, "packs", False):
        inbox.batcher.row_tokens = loaded.ready.max_tokens
    inbox.open(loaded.tokenizer, loaded.spec)
    send(loaded.ready)
    audit = Audit(loaded, send)
    if not inbox.batcher.wait(WARM_UP_AFTER_S):
        works(loaded)
        audit.begin()
    run_batches(inbox.batcher, loaded, send, budget, audit.begin)


def run_batches(
    batcher: Batcher,
    loaded: Loaded,
    send: Sender,
    budget: Budget,
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Run batches until the end, and call `answered` after each.

    A GPU gets the next one before the rows of the last are back.
    """
    overlaps = hasattr(loaded.encoder, "start")
    running: Running | None = None
    ended_s = 0.0
    while True:
        batch = batcher.next_batch(wait=running is None)
        if not batch and not running:
            return
        following = Running(batch, loaded) if batch else None
        ending, running = (running, following) if overlaps else (following, None)
        if ending:
            ending.began_s = max(ending.began_s, ended_s)  # the model was not its own before
            for failed in answer(ending, loaded, send, budget):
                batcher.cancel(failed)
            answered()
            ended_s = time.monotonic()


class Audit:
    """The encoder's own look at what it computes with, once, beside everything else."""

    def __init__(self, loaded: Loaded, send: Sender) -> None:
        self._look: Callable[[], str | None] | None = getattr(loaded.encoder, "audit", None)
        self._send = send

    def begin(self) -> None:
        """Start it in a thread of its own, the first time; end the process if it finds damage."""
        look, self._look = self._look, None
        if look:
            Thread(target=self._run, args=(look,), name="audit", daemon=True).start()

    def _run(self, look: Callable[[], str | None]) -> None:
        with suppress(OSError):  # on Linux a thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, get_native_id(), LOW_PRIORITY)
        try:
            damage = look()
        except Exception as error:  # noqa: BLE001 - whatever a backend raises
            log(f"what it computes with could not be checked: {type(error).__name__}")
            return
        if damage:
            self._send(wire.Damaged(what=damage))
            os._exit(DAMAGED)


def works(loaded: Loaded, length: int | None = None) -> bool:
    """Embed a harmless text, cut or repeated to so many tokens; say whether the model can.

    A first run has the engine do what it does only once (repack weights, build kernels), for a
    model that was loaded before anybody needed it.
    """
    try:
        token_ids, mask = pad(loaded.tokenizer.encode([WARM_UP_TEXT]))
        shape = (1, length or token_ids.shape[1])
        loaded.encoder.encode(np.resize(token_ids, shape), np.resize(mask, shape))
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        log(f"a harmless text failed: {type(error).__name__}")
        return False
    return True


class Inbox:
    """What comes in: one thread reads frames into the queue, another tokenizes long requests.

    The reader tokenizes the first slice of each itself, unless it is a long text: to wake another
    thread for a short one takes longer than its tokens.
    """

    def __init__(self, stdin: BinaryIO, batcher: Batcher, send: Sender) -> None:
        self.batcher = batcher
        self._stdin = stdin
        self._send = send
        self._tokenizer: Tokenizer | None = None
        self._decoder: Decoder | None = None
        self._describing = ThreadPoolExecutor(1, "describing")
        self._to_describe: set[int] = set()  # ids of those who still wait

    def open(self, tokenizer: Tokenizer, spec: ModelSpec) -> None:
        """Accept requests from now on; the server sends none before it was told Ready."""
        self._tokenizer = tokenizer
        self._decoder = Decoder(spec.token_ids, spec.name) if spec.token_ids else None
        rest = Thread(target=self._tokenize_rest, args=(tokenizer,), name="tokenizer", daemon=True)
        rest.start()

    def run(self) -> None:
        """Read until stdin closes. Without a model yet, that ends the process at once."""
        with worker_ends_with_this_thread("reading requests"):
            while received := wire.read(self._stdin):
                if isinstance(received.frame, wire.Embed) and self._tokenizer:
                    request = self._decoded(received.frame)
                    if request and (first := self.batcher.add(request)):
                        self._tokenize(*first, self._tokenizer)
                elif isinstance(received.frame, wire.Tokenize) and self._tokenizer:
                    self._to_describe.add(received.frame.id)
                    self._describing.submit(self._describe, received.frame, self._tokenizer)
                elif isinstance(received.frame, wire.Cancel):
                    self.batcher.cancel(received.frame.id)
                    self._to_describe.discard(received.frame.id)
        if self._tokenizer is None:
            os._exit(0)  # in the middle of a download or load that nobody waits for
        self.batcher.close()

    def _decoded(self, request: wire.Embed) -> wire.Embed | None:
        """Return a request with its texts; None when it was answered with an error."""
        if not request.token_ids:
            return request
        assert self._decoder  # who asks has looked at the entry
        try:
            ids = [list(map(int, text.split())) for text in request.texts]
            return replace(request, texts=list(map(self._decoder.decode, ids)), token_ids=False)
        except EmberdError as error:
            self._send(_failure(request.id, error))
            return None

    def _tokenize_rest(self, tokenizer: Tokenizer) -> None:
        """Tokenize slice by slice, so that a short request passes a bulk job here too."""
        with worker_ends_with_this_thread("tokenizing"):
            while found := self.batcher.next_slice():
                self._tokenize(*found, tokenizer)

    def _tokenize(self, work: Work, indices: range, tokenizer: Tokenizer) -> None:
        began_s = time.monotonic()
        try:
            texts = [work.request.texts[index] for index in indices]
            tokens = tokenizer.encode(texts, work.request.prompt)
            if not work.request.truncate:
                refuse_cut(indices, tokens)
        except EmberdError as error:
            self._fail(work.request.id, error)
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
            log(f"tokenizing failed: {type(error).__name__}")
            self._fail(work.request.id, EmberdError("The texts could not be tokenized."))
        else:
            self.batcher.add_tokens(work, indices, tokens, time.monotonic() - began_s)

    def _fail(self, request_id: int, error: EmberdError) -> None:
        self.batcher.cancel(request_id)
        self._send(_failure(request_id, error))

    def _describe(self, request: wire.Tokenize, tokenizer: Tokenizer) -> None:
        """Answer who asks for tokens, in a thread of their own: such texts are not cut."""
        with worker_ends_with_this_thread("describing tokens"):
            try:
                began_s = time.monotonic()
                for index in range(len(request.texts)):
                    self._describe_one(request, index, tokenizer, began_s)
            except BaseException as error:  # noqa: BLE001 - as above
                log(f"tokenizing failed: {type(error).__name__}")
                self._send(_failure(request.id, EmberdError("The texts could not be tokenized.")))
            self._to_describe.discard(request.id)

    def _describe_one(
        self, request: wire.Tokenize, index: int, tokenizer: Tokenizer, began_s: float
    ) -> None:
        """Send the tokens of one text as JSON; give up once nobody waits for them."""
        pieces, count = [], 0
        for tokens in tokenizer.describe(request.prompt + request.texts[index]):
            if request.id not in self._to_describe:
                return
            wanted = [token for token in tokens if request.special or not token["special"]]
            count += len(tokens)
            if wanted:
                pieces.append(orjson.dumps(wanted)[1:-1])
        fragment = b"[" + b",".join(pieces) + b"]"
        self._send(
            wire.Vectors(
                id=request.id,
                indices=[index],
                sizes=[len(fragment)],
                tokens=count,
                truncated=[],
                tokenize_s=time.monotonic() - began_s,
                queue_s=0.0,
                model_s=0.0,
                encode_s=0.0,
            ),
            fragment,
        )


@contextmanager
def worker_ends_with_this_thread(doing: str) -> Iterator[None]:
    """End the process when a thread does: nobody would be answered, and the server starts another.

    A panic in the tokenizer is no `Exception`.
    """
    try:
        yield
    except BaseException as error:  # noqa: BLE001
        log(f"{doing} failed: {type(error).__name__}")
        os._exit(70)


def refuse_cut(indices: Iterable[int], tokens: Iterable[Tokens]) -> None:
    """Raise `TextTooLongError` for the first text that is longer than the model takes."""
    for index, text in zip(indices, tokens, strict=True):
        if text.is_cut:
            raise TextTooLongError(
                f"Text {index} has {text.uncut} tokens and the model takes {len(text.ids)}.",
                hint="Split the text, or leave `truncate` true.",
            )


class Running:
    """A batch on its way through the model."""

    def __init__(self, batch: Batch, loaded: Loaded) -> None:
        self.batch = batch
        self.began_s = time.monotonic()
        self._finish = _start(batch, loaded)

    def finish(self) -> Matrix | None:
        """Wait for the vectors, `(N, D)`; None when the backend raised."""
        return self._finish()


def answer(running: Running, loaded: Loaded, send: Sender, budget: Budget) -> list[int]:
    """Wait for a batch and send each request its part; return the ids of requests that failed.

    A text that fails fails its own request and no other. `budget` learns how long it took.
    """
    batch, began_s = running.batch.items, running.began_s
    rows, failures = usable(running.finish(), batch, loaded)
    model_s = time.monotonic() - began_s
    padded_tokens = running.batch.padded_tokens
    if not failures:
        budget.note(padded_tokens, model_s)
    send(
        wire.Batch(
            texts=len(batch),
            tokens=sum(len(item.tokens.ids) for item in batch),
            padded_tokens=padded_tokens,
            budget_tokens=budget.tokens,
            model_s=model_s,
        ),
        more=True,
    )
    failed_ids = []
    for work in {id(item.work): item.work for item in batch}.values():
        request = work.request
        mine = [place for place, item in enumerate(batch) if item.work is work]
        failed = next((failures[place] for place in mine if place in failures), None)
        if failed:
            send(_failure(request.id, failed))
            failed_ids.append(request.id)
            continue
        encoding_s = time.monotonic()
        out = vectors.truncate(rows[mine], request.dimensions)
        if loaded.spec.normalize if request.normalize is None else request.normalize:
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
                tokenize_s=work.tokenize_s,
                queue_s=max(0.0, (work.first_run_s or began_s) - work.arrived_s - work.tokenize_s),
                model_s=model_s,
                encode_s=time.monotonic() - encoding_s,
            ),
            b"".join(fragments),
        )
    return failed_ids


def usable(
    rows: Matrix | None, batch: Sequence[Item], loaded: Loaded
) -> tuple[Matrix, dict[int, EmberdError]]:
    """Return `(N, D)` and an error for each row that is no usable vector.

    Such a text is run again alone first: it must not fail for what its neighbours did.

    Raises:
        WorkerError: it is not for the text that the model fails; it may be out of memory.
    """
    failures: dict[int, EmberdError] = {}
    alone = rows
    bad = range(len(batch)) if rows is None else np.flatnonzero(~vectors.finite_rows(rows)).tolist()
    if rows is None:
        rows = np.zeros((len(batch), loaded.spec.dimensions), np.float32)
    for place in bad:
        length = len(batch[place].tokens.ids)
        by_itself = Batch([[batch[place]]], length)
        again = _start(by_itself, loaded)() if len(batch) > 1 else alone
        if again is None and not works(loaded, length):
            raise WorkerError("The model fails at any text.")  # the next worker takes over
        if again is not None and vectors.finite_rows(again)[0]:
            rows[place] = again[0]
        else:
            failures[place] = BadVectorError(
                f"The model gave no usable vector for text {batch[place].index}.",
                hint="Leave this text out, or try `compute: f32` for this model.",
            )
    return rows, failures


def _start(batch: Batch, loaded: Loaded) -> Callable[[], Matrix | None]:
    """Pad and start; what is returned waits for vectors, or for None when the backend raised."""
    items = batch.items
    token_ids, mask = pad_rows([[item.tokens for item in row] for row in batch.rows], batch.width)
    begin = getattr(loaded.encoder, "start", None)

    def note(error: Exception) -> None:
        shape = " x ".join(map(str, token_ids.shape))
        log(f"a batch of {shape} tokens failed: {type(error).__name__}")

    try:
        wait = begin(token_ids, mask) if begin else partial(loaded.encoder.encode, token_ids, mask)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises costs this batch only
        note(error)
        return lambda: None

    def finish() -> Matrix | None:
        try:
            return _without_cut_columns(_one_each(wait(), items), items)
        except Exception as error:  # noqa: BLE001 - as above
            note(error)
            return None

    return finish


def _one_each(rows: Matrix, batch: Sequence[Item]) -> Matrix:
    """Raise ValueError when there is not a vector for each text.

    One without tokens, whose tokenizer adds none, has no place in a row of several.
    """
    if len(rows) != len(batch):
        raise ValueError(f"{len(rows)} vectors for {len(batch)} texts")
    return rows


def _without_cut_columns(rows: Matrix, batch: Sequence[Item]) -> Matrix:
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
