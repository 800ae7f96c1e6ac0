"""One peer's turn in a round: the same requests for every peer, as flat numbers."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import servers
from peers import BULK, CLIENTS, COLD, JOB, SHORT, Peer
from servers import Running

from emberd.bench import measure
from emberd.bench.client import Connection
from emberd.bench.measure import Numbers
from emberd.bench.texts import Texts

SETTLE_S = 1.0
CLIENTS_AT_ONCE = 32
TEXTS_A_REQUEST = 100
SENTENCE_WORDS = (4, 6, 8, 10, 12, 14, 18)  # 14 tokens on average


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a turn does: counts, and the most seconds."""

    queries: int = 150
    queries_s: float = 6.0
    clients_s: float = 4.0
    cold: int = 3
    job_texts: int = 2000
    blocks: int = 4  # at most, of a peer's own number


QUICK = Effort(queries=10, queries_s=1.0, clients_s=0.5, cold=1, job_texts=50, blocks=1)


def take(peer: Peer, texts: Texts, passages: Sequence[Sequence[str]], effort: Effort) -> Numbers:
    """Measure a peer. `passages` are blocks of texts: those to measure, then one for warming up."""
    if peer.in_process:
        return _in_process(peer, texts, passages, effort)
    with peer.program.run() as running:
        numbers: Numbers = {"start_s": running.start_s}
        if COLD in peer.parts:
            numbers |= _cold(running, texts, effort)
        else:
            measure.first_ms(running.server, texts)
        if SHORT in peer.parts:
            numbers |= measure.one_client(
                running.server, texts, count=effort.queries, seconds=effort.queries_s
            )
        if CLIENTS in peer.parts:
            numbers |= measure.many_clients(
                running.server, texts, clients=CLIENTS_AT_ONCE, seconds=effort.clients_s
            )
        if BULK in peer.parts:
            numbers |= _bulk(peer, running, passages, effort)
        if not peer.unloads:
            return numbers | {"worked_mib": measure.tree_mib(running.pid)}
        if JOB in peer.parts:
            every = [text for block in passages for text in block][: effort.job_texts]
            numbers |= measure.job(running.server, texts, every)
        time.sleep(SETTLE_S)
        numbers["worked_mib"] = measure.tree_mib(running.pid)
        measure.unload(running.server)
        return numbers | {"unloaded_after_work_mib": measure.tree_mib(running.pid)}


def _cold(running: Running, texts: Texts, effort: Effort) -> Numbers:
    """The page cache is warm: the check before the first round started and loaded it."""
    time.sleep(SETTLE_S)
    numbers = {"idle_mib": measure.tree_mib(running.pid)}
    numbers["cold_start_ms"] = measure.first_ms(running.server, texts)
    time.sleep(SETTLE_S)
    numbers["loaded_mib"] = measure.tree_mib(running.pid)
    spent_ms = []
    for _ in range(effort.cold):
        measure.unload(running.server)
        numbers["unloaded_mib"] = measure.tree_mib(running.pid)
        time.sleep(SETTLE_S)
        spent_ms.append(measure.first_ms(running.server, texts))
    numbers["cold_unload_ms"] = sorted(spent_ms)[len(spent_ms) // 2]
    numbers["cold_unload_max_ms"] = max(spent_ms)
    return numbers | _phases(running)


def _phases(running: Running) -> Numbers:
    """Return what emberd says about the latest load; empty for other servers."""
    with Connection(running.server) as connection:
        health = json.loads(connection.ask(running.server.get("/health")))
        if "name" not in health:
            return {}
        rows = json.loads(connection.ask(running.server.get("/models")))["models"]
    row = next(row for row in rows if row["name"] == health["name"])
    parts = {f"phase_{name}_ms": seconds * 1000 for name, seconds in row["phases_s"].items()}
    return {"load_ms": row["last_load_s"] * 1000, **parts}


def _bulk(
    peer: Peer, running: Running, passages: Sequence[Sequence[str]], effort: Effort
) -> Numbers:
    blocks = min(peer.bulk_blocks, effort.blocks)
    measured = [text for block in passages[:blocks] for text in block]
    if blocks > 1:  # the others are slow, and answer the same way each time
        measure.texts_per_s(running.server, passages[blocks], per_request=TEXTS_A_REQUEST)
    if not peer.unloads or JOB in peer.parts or not peer.environment:
        speed = measure.texts_per_s(running.server, measured, per_request=TEXTS_A_REQUEST)
        return {"bulk_texts_per_s": speed, "bulk_texts": float(len(measured))}
    with measure.watching(running.server, None, health=True) as watch:
        speed = measure.texts_per_s(running.server, measured, per_request=TEXTS_A_REQUEST)
    return {"bulk_texts_per_s": speed, "bulk_texts": float(len(measured)), **watch.numbers()}


class Pipe:
    """A program that answers each line of JSON with another."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.hello = self._read()

    def ask(self, **command: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can say
        """Send a command and return the answer. Raises RuntimeError if the program has ended."""
        assert self._process.stdin  # a pipe, see `piped`
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def _read(self) -> str:
        assert self._process.stdout  # a pipe, see `piped`
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a program that was being measured in process has ended")
        return line.decode()


@contextmanager
def piped(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Pipe]:
    """Run a program that reads commands, and end it."""
    with subprocess.Popen(
        command,
        env={**servers.plain_environment(), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield Pipe(process)
        finally:
            servers.end(process)


def _in_process(
    peer: Peer, texts: Texts, passages: Sequence[Sequence[str]], effort: Effort
) -> Numbers:
    with piped(peer.program.command(0), peer.program.environment) as pipe:
        for query in texts.queries(5):
            pipe.ask(texts=[query], batch=1)
        spent_s = [
            pipe.ask(texts=[query], batch=1)["spent_s"] for query in texts.queries(effort.queries)
        ]
        numbers = measure.percentiles("short", spent_s)
        blocks = min(peer.bulk_blocks, effort.blocks)
        pipe.ask(texts=passages[blocks], batch=1)
        measured = [text for block in passages[:blocks] for text in block]
        spent = pipe.ask(texts=measured, batch=1)["spent_s"]
    return numbers | {"bulk_texts_per_s": len(measured) / spent, "bulk_texts": len(measured)}


def sentences(texts: Texts, count: int) -> list[str]:
    """Return sentences like those that expected.json was measured with."""
    return [
        text
        for place in range(count)
        for text in texts.take(1, SENTENCE_WORDS[place % len(SENTENCE_WORDS)])
    ]
