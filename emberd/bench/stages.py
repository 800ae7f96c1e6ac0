"""What `emberd bench` measures, stage by stage, in about a minute.

Every stage has a time limit: a slow model is measured with fewer texts, never with shorter ones.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from emberd.bench import measure
from emberd.bench.client import Connection, RefusedError, Server
from emberd.bench.measure import Numbers
from emberd.bench.texts import Texts

CLIENTS = 32
COLD_STARTS = 3
LENGTHS = (8, 32, 128, 400)  # words
TEXTS_A_REQUEST = 16
JOB_TEXTS = 400
SETTLE_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stage may take."""

    stage_s: float = 4.0
    queries: int = 200

    @property
    def settle_s(self) -> float:
        """How long the server is left alone before its memory or a cold start is measured."""
        return min(SETTLE_S, self.stage_s)


@dataclass(slots=True)
class Results:
    """What was measured; numbers that cannot be measured on this server are missing.

    `throughput` has a row for each length: words, texts/s, and tokens/s if the server reports its
    token counts.
    """

    url: str
    model: str | None = None
    numbers: Numbers = field(default_factory=dict)
    throughput: list[Numbers] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        rounded = {name: round(value, 3) for name, value in self.numbers.items()}
        rows = [{name: round(value, 3) for name, value in row.items()} for row in self.throughput]
        return {"url": self.url, "model": self.model, "numbers": rounded, "throughput": rows}


def detect(url: str, model: str | None) -> Server:
    """Return the server at an address, and the dialect it speaks.

    Raises:
        NoServerError: nothing answers there.
        RefusedError: neither `/embed` nor `/v1/embeddings` works; quotes the last answer.
    """
    last: RefusedError | None = None
    for dialect in ("native", "openai"):
        server = Server.at(url, model=model, dialect=dialect)
        if dialect == "openai":
            server = replace(
                server, model=model or "model", prefix=server.prefix.removesuffix("/v1")
            )
        with Connection(server) as connection:
            try:
                server.vectors(connection.ask(server.embed(["Does this server embed?"])))
            except RefusedError as error:
                last = error
                continue
        return server
    raise RefusedError(
        f"{url} does not embed at /embed or /v1/embeddings: {last.message if last else ''}",
        hint="Name a model that it has with `--model`.",
    )


def local_pid(server: Server) -> int | None:
    """Return the process that listens there, if it is on this machine and visible to us."""
    if server.host not in ("127.0.0.1", "localhost", "::1"):
        return None
    for process in psutil.process_iter():
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:  # another user's
            continue
        for each in connections:
            if each.status == psutil.CONN_LISTEN and each.laddr.port == server.port:
                return int(process.pid)
    return None


def bench(
    server: Server,
    pid: int | None,
    say: Say,
    *,
    start_s: float | None = None,
    pace: Pace | None = None,
) -> Results:
    """Measure a running server whose model may be cold.

    Args:
        server: the server.
        pid: its process, to measure its memory and the cores that its workers use; None leaves
            both out.
        say: called with the name of each stage before it starts.
        start_s: how long the server took to start, if known; its model is cold then.
        pace: how long a stage may take.

    Raises:
        NoServerError, RefusedError: the server went away, or refused a request.
    """
    pace = pace or Pace()
    host = f"[{server.host}]" if ":" in server.host else server.host
    results = Results(f"http://{host}:{server.port}{server.prefix}", server.model)
    numbers, texts = results.numbers, Texts()

    def memory(when: str) -> None:
        if pid is not None:
            time.sleep(pace.settle_s)
            numbers[f"{when}_mib"] = measure.tree_mib(pid)

    if start_s is not None:
        numbers["start_ms"] = start_s * 1000
        memory("idle")
    say("the first answer, which may include downloading and compiling")
    first = "first_ever_ms" if start_s is not None else "first_ms"
    numbers[first] = measure.first_ms(server, texts)
    memory("loaded")
    if _unloads(server):
        say("cold starts")
        numbers |= _cold(server, texts, memory, pace.settle_s)
    say("one client")
    numbers |= measure.one_client(server, texts, count=pace.queries, seconds=pace.stage_s)
    say(f"{CLIENTS} clients")
    numbers |= measure.many_clients(server, texts, clients=CLIENTS, seconds=pace.stage_s)
    for words in LENGTHS:
        say(f"texts of {words} words")
        results.throughput.append(_throughput(server, texts, words, pace.stage_s))
    say("queries and /health during a job")
    numbers |= _job(server, pid, texts, results.throughput, pace.stage_s)
    memory("worked")
    if _unloads(server):
        measure.unload(server)
        memory("unloaded")
    return results


def _unloads(server: Server) -> bool:
    """Say whether the server has `/unload`, as emberd and the server it replaces do."""
    if server.dialect != "native":
        return False
    with Connection(server) as connection:
        try:
            health = json.loads(connection.ask(server.get("/health")))
        except (RefusedError, ValueError):
            return False
    return isinstance(health, dict) and "loaded" in health


def _cold(server: Server, texts: Texts, memory: Callable[[str], None], settle_s: float) -> Numbers:
    spent_ms: list[float] = []
    for _ in range(COLD_STARTS):
        measure.unload(server)
        if not spent_ms:
            memory("unloaded_idle")
        time.sleep(settle_s)
        spent_ms.append(measure.first_ms(server, texts))
    return {"cold_ms": sorted(spent_ms)[len(spent_ms) // 2], "cold_max_ms": max(spent_ms)}


def _throughput(server: Server, texts: Texts, words: int, seconds: float) -> Numbers:
    """Measure one client that sends requests of several texts, one after another."""
    done, tokens = 0, 0
    with Connection(server) as connection:
        connection.ask(server.embed(texts.take(1, words)))
        began_s = time.perf_counter()
        while True:
            answer = connection.ask(server.embed(texts.take(TEXTS_A_REQUEST, words)))
            done += TEXTS_A_REQUEST
            tokens += _tokens(answer)
            spent_s = time.perf_counter() - began_s
            if spent_s >= seconds / 2:
                break
    row = {"words": float(words), "texts_per_s": done / spent_s}
    return row | ({"tokens_per_s": tokens / spent_s} if tokens else {})


def _tokens(answer: bytes) -> int:
    """Return the answer's token count; 0 if it has none."""
    usage = json.loads(answer).get("usage") or {}
    return int(usage.get("tokens") or usage.get("total_tokens") or 0)


def _job(
    server: Server, pid: int | None, texts: Texts, known: Sequence[Numbers], seconds: float
) -> Numbers:
    """Measure a job of mixed passages that takes a few seconds, alone and with other requests."""
    per_s = known[-2]["texts_per_s"]  # for 128 words: a little longer than the passages
    count = max(16, min(JOB_TEXTS, round(per_s * seconds)))
    return measure.job(server, texts, texts.passages(count), pid)
