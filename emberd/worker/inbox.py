"""Incoming frames become tokenized requests in the batcher's queue.

Whoever reads takes all frames that have come, and tokenizes the first slice of each request itself,
together, so that every core has a share; waking another thread for a short text takes longer than
tokenizing it. Who reads, the batcher decides; a thread of its own does while the others work.
Another tokenizes the remaining slices, and long texts. What is not for the model goes to
`describing`.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BufferedIOBase
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING

from emberd.errors import EmberdError, NoTokensError, TextTooLongError
from emberd.registry.spec import ModelSpec
from emberd.worker import late, wire
from emberd.worker.batcher import Batcher
from emberd.worker.describing import Describer
from emberd.worker.encodings import Decoder
from emberd.worker.outbox import Sender, failure, log
from emberd.worker.threads import worker_ends_with_this_thread
from emberd.worker.tokenizer import Tokenizer, Tokens
from emberd.worker.work import Slice, Work, decisive

if TYPE_CHECKING:
    from emberd.worker.keeper import Keeper  # which imports SQLite
    from emberd.worker.lookups import Lookups
    from emberd.worker.query_table import QueryTable

READ_BYTES = 2**16  # whatever is less needs no memory of its own


class Inbox:
    """Reads requests from the server until it closes stdin."""

    def __init__(self, stdin: BufferedIOBase, batcher: Batcher, send: Sender) -> None:
        self.batcher = batcher
        batcher.read = self._receive
        self._stdin = stdin
        self._splitter = wire.Splitter()
        self._send = send
        self._tokenizer: Tokenizer | None = None
        self._decoder: Decoder | None = None
        self._keeper: Keeper | None = None
        self._describer = Describer(send)
        self._lookups: Lookups | None = None
        self._pools_chunks = False

    def open(
        self,
        tokenizer: Tokenizer,
        spec: ModelSpec,
        queries: "QueryTable | None" = None,
        keeper: "Keeper | None" = None,
        *,
        pools_chunks: bool = False,
    ) -> None:
        """Accept requests from now on. The server sends none before it has seen Ready.

        `queries` is where queries are looked up, if they need no batch. `pools_chunks` is what the
        encoder says; see `backends.base`.
        """
        if queries:
            from emberd.worker.lookups import Lookups  # which few models need

            self._lookups = Lookups(queries, self._send)
        self._tokenizer = tokenizer
        self._keeper = keeper
        self._pools_chunks = pools_chunks
        self._decoder = Decoder(spec.token_ids, spec.name) if spec.token_ids else None
        rest = Thread(target=self._tokenize_rest, args=(tokenizer,), name="tokenizer", daemon=True)
        rest.start()

    def run(self) -> None:
        """Read until stdin closes: while the model loads, and then while other threads work."""
        while self.batcher.read_beside():
            pass

    def _receive(self) -> None:
        """Wait for what the server sends, and take it in.

        Once stdin closes, what is queued is still run; without a model, the process ends at once.
        """
        with worker_ends_with_this_thread("reading requests"):
            data = self._stdin.read1(READ_BYTES)
            first = [self._accept(received.frame) for received in self._splitter.feed(data)]
            if self._tokenizer:
                self._tokenize([slice_ for slice_ in first if slice_], self._tokenizer)
        if data:
            return
        if self._tokenizer is None:
            os._exit(0)  # in the middle of a download or load that nobody is waiting for
        self.batcher.close()

    def _accept(self, frame: wire.Frame) -> Slice | None:
        """Take a frame; return what the caller has to tokenize, if it is a request with texts."""
        if isinstance(frame, wire.Cancel):
            self.batcher.cancel(frame.id)
            self._describer.cancel(frame.id)
            if self._lookups:
                self._lookups.cancel(frame.id)
        elif isinstance(frame, wire.Embed) and frame.is_query and self._lookups:
            self._lookups.add(frame)
        elif isinstance(frame, wire.Embed) and self._tokenizer:
            request = self._with_texts(frame)
            return self.batcher.add(request) if request else None
        elif isinstance(frame, wire.Tokenize | wire.Chunk) and self._tokenizer:
            self._describer.add(frame, self._tokenizer)
        return None

    def _with_texts(self, request: wire.Embed) -> wire.Embed | None:
        """Decode a request sent as token ids; None if that failed, which has been answered."""
        if not request.token_ids:
            return request
        assert self._decoder  # the server sends ids only if the model's entry allows them
        try:
            ids = [list(map(int, text.split())) for text in request.texts]
            return replace(request, texts=list(map(self._decoder.decode, ids)), token_ids=False)
        except EmberdError as error:
            self._send(failure(request.id, error))
            return None

    def _tokenize_rest(self, tokenizer: Tokenizer) -> None:
        """Tokenize slice by slice, so that a short request can overtake a bulk job here too."""
        with worker_ends_with_this_thread("tokenizing"):
            while found := self.batcher.next_slice():
                self._tokenize([found], tokenizer)

    def _tokenize(self, slices: Iterable[Slice], tokenizer: Tokenizer) -> None:
        """Tokenize slices of requests, those with the same prompt or query at once."""
        by_first: defaultdict[object, list[Slice]] = defaultdict(list)
        for work, indices in slices:
            alone = work if work.request.spans else None
            by_first[decisive(work.request), id(alone)].append((work, indices))
        for alike in by_first.values():
            if left := self._keeper.answer(alike) if self._keeper else alike:
                self._tokenize_alike(left, tokenizer)

    def _tokenize_alike(self, slices: Sequence[Slice], tokenizer: Tokenizer) -> None:
        began_s = time.monotonic()
        texts = [work.request.texts[index] for work, indices in slices for index in indices]
        try:
            tokens = iter(self._tokens(slices[0], texts, tokenizer))
        except EmberdError as error:  # about the query that all have, or the chunks of the only one
            for work, _ in slices:
                self._fail(work.request.id, error)
            return
        except BaseException as error:  # noqa: BLE001 - a panic in the library is not an Exception
            if len(slices) > 1:  # it is the fault of one of them
                for one in slices:
                    self._tokenize_alike([one], tokenizer)
                return
            log(f"tokenizing failed: {type(error).__name__}")
            self._fail(slices[0][0].request.id, EmberdError("The texts could not be tokenized."))
            return
        spent_s = time.monotonic() - began_s
        with self.batcher.held():
            for work, indices in slices:
                self._add(work, indices, list(islice(tokens, len(indices))), spent_s)

    def _tokens(self, first: Slice, texts: Sequence[str], tokenizer: Tokenizer) -> Sequence[Tokens]:
        """Tokenize texts of requests like the first, equal ones once if they are shared."""
        work, indices = first
        if work.request.spans:
            chunked = self._pools_chunks
            return late.encode(work.request, indices, tokenizer, pools_chunks=chunked)
        if work.alike is None:
            return encode(work.request, texts, tokenizer)
        found = self.batcher.known(work, texts)
        new = [text for text in dict.fromkeys(texts) if text not in found]
        if len(new) == len(texts):
            return encode(work.request, texts, tokenizer)
        found.update(zip(new, encode(work.request, new, tokenizer), strict=True))
        return [found[text] for text in texts]

    def _add(
        self, work: Work, indices: Sequence[int], tokens: Sequence[Tokens], spent_s: float
    ) -> None:
        try:
            refuse_empty(indices, tokens)
            if not work.request.truncate:
                refuse_cut(indices, tokens)
        except EmberdError as error:
            self._fail(work.request.id, error)
        else:
            self.batcher.add_tokens(work, indices, tokens, spent_s)

    def _fail(self, request_id: int, error: EmberdError) -> None:
        self.batcher.cancel(request_id)
        self._send(failure(request_id, error))


def encode(request: wire.Embed, texts: Sequence[str], tokenizer: Tokenizer) -> Sequence[Tokens]:
    """Tokenize texts as a request says. Raises TextTooLongError."""
    if request.query is None:
        return tokenizer.encode(texts, request.prompt)
    return tokenizer.encode_pairs(request.query, texts, request.text_tokens)


def refuse_empty(indices: Iterable[int], tokens: Iterable[Tokens]) -> None:
    """Raise `NoTokensError` for the first text without tokens, which no batch has a place for.

    Static models have no special tokens and leave unknown ones out.
    """
    for index, text in zip(indices, tokens, strict=True):
        if not text.ids:
            raise NoTokensError(
                f"Text {index} is empty, or has no token that the model knows: it has no vector.",
                hint="Leave this text out.",
            )


def refuse_cut(indices: Iterable[int], tokens: Iterable[Tokens]) -> None:
    """Raise `TextTooLongError` for the first text that is longer than the model takes."""
    for index, text in zip(indices, tokens, strict=True):
        if text.is_cut:
            raise TextTooLongError(
                f"Text {index} has {text.uncut} tokens, but the model takes {len(text.ids)}.",
                hint="Split the text, or leave `truncate` true.",
            )
