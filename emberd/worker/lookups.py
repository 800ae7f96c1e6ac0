"""Requests whose vectors are looked up: answered in a thread of their own, beside the batches."""

import time
from concurrent.futures import ThreadPoolExecutor

from emberd.errors import EmberdError, TextTooLongError
from emberd.worker import sparse, wire
from emberd.worker.outbox import Sender, failure, log
from emberd.worker.query_table import QueryTable
from emberd.worker.threads import worker_ends_with_this_thread
from emberd.worker.work import SLICE_TEXTS


class Lookups:
    """Answers queries one request after the other, slice by slice."""

    def __init__(self, queries: QueryTable, send: Sender) -> None:
        self._queries = queries
        self._send = send
        self._thread = ThreadPoolExecutor(1, "lookups")
        self._wanted: set[int] = set()  # ids of requests that are not cancelled

    def add(self, request: wire.Embed) -> None:
        """Queue a request."""
        self._wanted.add(request.id)
        self._thread.submit(self._answer, request)

    def cancel(self, request_id: int) -> None:
        """Forget a request."""
        self._wanted.discard(request_id)

    def _answer(self, request: wire.Embed) -> None:
        with worker_ends_with_this_thread("looking up queries"):
            began_s = time.monotonic()
            try:
                for first in range(0, len(request.texts), SLICE_TEXTS):
                    if request.id in self._wanted:
                        self._answer_slice(request, first, began_s)
            except EmberdError as error:
                self._send(failure(request.id, error))
            except BaseException as error:  # noqa: BLE001 - a panic in the tokenizer is no Exception
                log(f"looking up failed: {type(error).__name__}")
                self._send(failure(request.id, EmberdError("The texts could not be tokenized.")))
            self._wanted.discard(request.id)

    def _answer_slice(self, request: wire.Embed, first: int, began_s: float) -> None:
        texts = request.texts[first : first + SLICE_TEXTS]
        tokens, vectors = self._queries.look_up(texts, request.prompt)
        places = range(first, first + len(texts))
        cut = [place for place, text in zip(places, tokens, strict=True) if text.is_cut]
        if cut and not request.truncate:
            text = tokens[cut[0] - first]
            raise TextTooLongError(
                f"Text {cut[0]} has {text.uncut} tokens, but the model takes {len(text.ids)}.",
                hint="Split the text, or leave `truncate` true.",
            )
        looked_up_s = time.monotonic()
        fragments = sparse.encode_entries(vectors, pairs=request.pairs)
        frame = wire.Fragments(
            id=request.id,
            indices=list(places),
            sizes=[len(fragment) for fragment in fragments],
            tokens=sum(len(text.ids) for text in tokens),
            truncated=cut,
            tokenize_s=looked_up_s - began_s,
            queue_s=0.0,
            model_s=0.0,
            encode_s=time.monotonic() - looked_up_s,
        )
        self._send(frame, b"".join(fragments))
