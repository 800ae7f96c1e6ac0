"""emberd's engine and tokenizer without a server, in a process of their own.

    python benchmarks/engine.py HOME MODEL STREAMS

Reads commands and writes results as lines of JSON: {"do": "encode", "texts": [...], "tokens": 512,
"seconds": 3}, how much it encodes in batches of so many tokens ("warm": true if it has done so
before); {"do": "tokenize", ...}; {"do": "query", "texts": [...]}, texts one after the other, with
tokenizing; {"do": "vectors", ...}, what they are embedded as. Times are taken here.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from emberd.backends import plugins
from emberd.backends.base import Encoder, LoadRequest, TokenIds, encode_alone
from emberd.config.load import load_config
from emberd.vectors import normalize
from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import Budget
from emberd.worker.padding import pad, pad_rows
from emberd.worker.tokenizer import Tokenizer

Arrays = tuple[TokenIds, TokenIds]
WARM_UP = 1 / 3  # of the seconds that are measured


def main() -> None:
    """Load the model and run commands until stdin closes."""
    home, name, streams = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    spec = load_config(environ={"EMBERD_HOME": str(home), "HOME": str(home)}).catalog.get(name)
    folder = Path(str(spec.sources[0].path))
    max_tokens = spec.max_tokens or 512
    tokenizer = Tokenizer(folder, max_tokens)
    encoder = plugins.load(plugins.resolve(spec.backend)).load(
        LoadRequest(
            folder=folder,
            pooling=spec.pooling,
            precision=spec.precision,
            compute=spec.compute,
            cache=home / "engine",
            cache_key=name,
            streams=streams,
        )
    )
    found = {"compute": encoder.compute, "streams": getattr(encoder, "streams", 1)}
    print(json.dumps(found), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), tokenizer, encoder, max_tokens)), flush=True)


def answer(
    command: dict[str, Any], tokenizer: Tokenizer, encoder: Encoder, max_tokens: int
) -> dict[str, Any]:
    """Run a command."""
    match command["do"]:
        case "encode":
            batcher = batcher_for(encoder, max_tokens, command["tokens"])
            batches = cut(batcher, tokenizer, command["texts"])
            return encode(encoder, batches, command["seconds"], warm=command.get("warm", False))
        case "vectors":
            tokens = tokenizer.encode(command["texts"])
            rows = [encode_alone(encoder, *pad([text])) for text in tokens]
            return {"embeddings": normalize(np.concatenate(rows)).tolist()}
        case "tokenize":
            return tokenize(tokenizer, command["texts"], command["seconds"])
        case _:
            return query(tokenizer, encoder, command["texts"])


def batcher_for(encoder: Encoder, max_tokens: int, tokens: int) -> Batcher:
    """Return a worker's batcher for this encoder, with so many padded tokens to a batch."""
    budget = Budget()
    batcher = Batcher(budget)
    batcher.suit(encoder, max_tokens)
    budget.tokens = tokens
    batcher.streams = 1  # batches run round and round: there is no end that streams should share
    return batcher


def cut(batcher: Batcher, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Arrays]:
    """Return all batches of these texts."""
    request = wire.Embed(
        id=0, texts=list(texts), prompt="", truncate=True, dimensions=0, encoding="raw", cache=False
    )
    found = batcher.add(request)
    while found:
        work, indices = found
        batcher.add_tokens(work, indices, tokenizer.encode([texts[index] for index in indices]))
        found = batcher.next_slice() if work.wants_tokens else None
    batcher.close()
    padded = (
        pad_rows([[item.tokens for item in row] for row in batch.rows], batch.width)
        for batch in iter(batcher.next_batch, None)
    )
    return [(token_ids, mask) for token_ids, mask in padded]


def encode(
    encoder: Encoder, batches: Sequence[Arrays], seconds: float, *, warm: bool = False
) -> dict[str, float]:
    """Encode for so long, on every stream, from token ids to vectors in memory.

    Before that, for a third of the time that does not count, unless it is `warm`.
    """
    run = _overlapping if hasattr(encoder, "start") else _in_turn
    streams = getattr(encoder, "streams", 1)
    for measured_s in (seconds,) if warm else (WARM_UP * seconds, seconds):
        began_s = time.perf_counter()
        endless = Endless(batches, until_s=began_s + measured_s)
        with ThreadPoolExecutor(streams) as threads:
            ran = [threads.submit(_speed, run, encoder, endless) for _ in range(streams)]
            tokens_per_s = sum(each.result() for each in ran)
    return {"tokens_per_s": tokens_per_s, "batches": len(batches)}


def _speed(
    run: Callable[[Encoder, Iterable[Arrays]], int], encoder: Encoder, batches: Iterable[Arrays]
) -> float:
    """Return the tokens per second of one stream, which ends its last batch after the others'."""
    began_s = time.perf_counter()
    tokens = run(encoder, batches)
    return tokens / (time.perf_counter() - began_s)


class Endless:
    """The same batches round and round, for several threads, until the time is up."""

    def __init__(self, batches: Sequence[Arrays], until_s: float) -> None:
        self._batches = batches
        self._numbers = count()
        self._until_s = until_s

    def __iter__(self) -> Iterator[Arrays]:
        while time.perf_counter() < self._until_s:
            yield self._batches[next(self._numbers) % len(self._batches)]


def _in_turn(encoder: Encoder, batches: Iterable[Arrays]) -> int:
    """Return how many tokens were encoded, without padding."""
    tokens = 0
    for token_ids, mask in batches:
        encoder.encode(token_ids, mask)
        tokens += int(np.count_nonzero(mask))
    return tokens


def _overlapping(encoder: Encoder, batches: Iterable[Arrays]) -> int:
    """Do the same, starting each batch before the last one is back, as a worker does on a GPU."""
    start: Callable[..., Callable[[], Any]] = encoder.start  # type: ignore[attr-defined]
    tokens = 0
    finish: Callable[[], Any] | None = None
    for token_ids, mask in batches:
        following = start(token_ids, mask)
        if finish:
            finish()
        finish = following
        tokens += int(np.count_nonzero(mask))
    if finish:
        finish()
    return tokens


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """Tokenize the same texts again and again."""
    done = tokens = 0
    tokenizer.encode(texts)
    began_s = time.perf_counter()
    while (spent_s := time.perf_counter() - began_s) < seconds:
        tokens += sum(len(text.ids) for text in tokenizer.encode(texts))
        done += len(texts)
    return {"texts_per_s": done / spent_s, "tokens_per_s": tokens / spent_s}


def query(tokenizer: Tokenizer, encoder: Encoder, texts: Sequence[str]) -> dict[str, list[float]]:
    """Return how long each text takes by itself, after a few that do not count."""
    spent_s: list[float] = []
    for text in [*texts[:5], *texts]:
        began_s = time.perf_counter()
        normalize(encode_alone(encoder, *pad(tokenizer.encode([text]))))
        spent_s.append(time.perf_counter() - began_s)
    return {"spent_s": spent_s[5:]}


if __name__ == "__main__":
    main()
