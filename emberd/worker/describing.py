"""`Tokenize` and `Chunk` requests: about texts, and not for the model.

They have threads of their own, as their texts are not cut: one may take seconds.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import orjson

from emberd.errors import EmberdError
from emberd.worker import chunking, wire
from emberd.worker.chunking import GivenUpError
from emberd.worker.outbox import Sender, failure, log
from emberd.worker.threads import worker_ends_with_this_thread
from emberd.worker.tokenizer import Tokenizer

Described = tuple[bytes, int]
"""A fragment, and how many tokens it is about."""


class Describer:
    """Answers requests beside the model; `send` takes the frames."""

    def __init__(self, send: Sender) -> None:
        self._send = send
        self._threads = {
            wire.Tokenize: ThreadPoolExecutor(wire.TOKENIZED_AT_ONCE, "describe"),
            wire.Chunk: ThreadPoolExecutor(wire.CHUNKED_AT_ONCE, "chunk"),
        }
        self._wanted: set[int] = set()  # ids of requests not cancelled yet

    def add(self, request: wire.Tokenize | wire.Chunk, tokenizer: Tokenizer) -> None:
        """Answer a request, in a thread of its own."""
        self._wanted.add(request.id)
        self._threads[type(request)].submit(self._answer, request, tokenizer)

    def cancel(self, request_id: int) -> None:
        """Give up a request, if it is one of these."""
        self._wanted.discard(request_id)

    def _answer(self, request: wire.Tokenize | wire.Chunk, tokenizer: Tokenizer) -> None:
        with worker_ends_with_this_thread("describing texts"):
            try:
                self._describe(request, tokenizer)
            except GivenUpError:
                pass
            except EmberdError as error:
                self._send(failure(request.id, error))
            except BaseException as error:  # noqa: BLE001 - a panic in a library is no Exception
                what = "tokenized" if isinstance(request, wire.Tokenize) else "cut into chunks"
                log(f"texts could not be {what}: {type(error).__name__}")
                self._send(failure(request.id, EmberdError(f"The texts could not be {what}.")))
            self._wanted.discard(request.id)

    def _describe(self, request: wire.Tokenize | wire.Chunk, tokenizer: Tokenizer) -> None:
        """Send what is to be said about each text; `GivenUpError` once nobody waits for it."""

        def alive() -> None:
            if request.id not in self._wanted:
                raise GivenUpError

        began_s = time.monotonic()
        chunk_size = 0
        if isinstance(request, wire.Tokenize):
            fragments = _tokens(request, tokenizer, alive)
        else:
            alive()
            chunks = chunking.splitter(request, tokenizer, alive)
            chunk_size, fragments = chunks.size, _chunks(request, chunks)
        for index, (fragment, tokens) in enumerate(fragments):
            self._send(
                wire.Fragments(
                    id=request.id,
                    indices=[index],
                    sizes=[len(fragment)],
                    tokens=tokens,
                    truncated=[],
                    tokenize_s=time.monotonic() - began_s,
                    queue_s=0.0,
                    model_s=0.0,
                    encode_s=0.0,
                    chunk_size=chunk_size,
                ),
                fragment,
            )


def _chunks(request: wire.Chunk, chunks: chunking.Chunks) -> Iterator[Described]:
    """Yield the chunks of each text as a JSON array."""
    for text in request.texts:
        found = chunks.describe(text)
        yield orjson.dumps(found), sum(chunk["tokens"] for chunk in found)


def _tokens(
    request: wire.Tokenize, tokenizer: Tokenizer, alive: Callable[[], None]
) -> Iterator[Described]:
    """Yield the tokens of each text as a JSON array."""
    for text in request.texts:
        pieces, count = [], 0
        for tokens in tokenizer.describe(request.prompt + text):
            alive()
            wanted = [token for token in tokens if request.special or not token["special"]]
            count += len(tokens)
            if wanted:
                pieces.append(orjson.dumps(wanted)[1:-1])
        yield b"[" + b",".join(pieces) + b"]", count
