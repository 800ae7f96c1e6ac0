"""Loads a server from several client processes, and says how fast it answered.

One process of clients would be slower than a server on sixteen cores. What the clients themselves
can do is measured against null servers, which answer at once with as many bytes.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from load_client import Job
from placement import running_on

from emberd.bench.client import Server
from emberd.bench.measure import Numbers

CLIENT = [sys.executable, str(Path(__file__).parent / "load_client.py")]
SHORT_WORDS, LONG_WORDS = 20, 250  # fewer than, and more than
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Request:
    """A request with one or more texts. `words`: of its only text, otherwise of all."""

    content: str
    texts: int
    words: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Clients that each send the next of `requests` when the last has been answered.

    Large requests count from the first one sent until the last one answered (`drain`). Small ones
    count while all clients are sending, after a share of the time (`ramp`).
    """

    clients: int
    requests: Sequence[Request]
    drain: bool
    ramp: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answered request."""

    request: Request
    sent_s: float
    done_s: float


def run(
    load: Load,
    servers: Sequence[Server],
    *,
    seconds: float,
    clients_on: Sequence[int],
    pid: int | None = None,
) -> Numbers:
    """Load each of these servers (mostly one several times) from a process of clients.

    `clients_on`: the processors for the clients; `pid`: of the server, for its processor time.
    """
    with ExitStack() as stack:
        processes = [
            (stack.enter_context(_client(clients_on)), part, server)
            for part, server in zip(_parts(load, len(servers)), servers, strict=True)
        ]
        for process, part, server in processes:
            content = [request.content for request in part.requests]
            job = Job(
                host=server.host, port=server.port, connections=part.clients,
                requests=content, drain=load.drain,
            )  # fmt: skip
            _write(process, json.dumps(asdict(job)))
        for process, _, _ in processes:
            _read(process)
        start_s = time.monotonic() + 0.05
        stop_s = start_s + seconds
        cpu_s = processor_time_s(pid)
        for process, _, _ in processes:
            _write(process, json.dumps([start_s, stop_s]))
        found = [(json.loads(_read(process)), part) for process, part, _ in processes]
        spent_s = time.monotonic() - start_s
        used = {name: used_s - cpu_s[name] for name, used_s in processor_time_s(pid).items()}
    answers = [
        Answer(part.requests[place], sent_s, done_s)
        for each, part in found
        for place, sent_s, done_s in each["answered"]
    ]
    numbers = counted(answers, load, start_s, stop_s)
    client_s = sum(each["cpu_s"] for each, _ in found)
    cores = {f"{name}_cores": used_s / spent_s for name, used_s in used.items()}
    return numbers | cores | {"client_cores": client_s / spent_s}


def counted(answers: Sequence[Answer], load: Load, start_s: float, stop_s: float) -> Numbers:
    """Return texts and tokens per second, and percentiles of short, of long and of all texts."""
    first_s = start_s + load.ramp * (stop_s - start_s)
    last_s = max([answer.done_s for answer in answers], default=stop_s) if load.drain else stop_s
    counts = [answer for answer in answers if first_s <= answer.done_s <= last_s]
    spent_s = last_s - first_s
    numbers: Numbers = {
        "texts_per_s": sum(answer.request.texts for answer in counts) / spent_s,
        "tokens_per_s": sum(answer.request.tokens for answer in counts) / spent_s,
        "answers": float(len(counts)),
    }
    kinds = {"": counts}
    if any(a.request.words < SHORT_WORDS for a in counts) and not load.drain:
        kinds["short_"] = [a for a in counts if a.request.words < SHORT_WORDS]
        kinds["long_"] = [a for a in counts if a.request.words > LONG_WORDS]
    for kind, some in kinds.items():
        ranked = sorted(answer.done_s - answer.sent_s for answer in some)
        for share in PERCENTILES:
            if ranked:
                rank = math.ceil(share / 100 * len(ranked)) - 1
                numbers[f"{kind}p{share}_ms"] = ranked[rank] * 1000
    return numbers


def processor_time_s(pid: int | None) -> dict[str, float]:
    """Return the processor time used by a server, and by all processes that it started."""
    if pid is None:
        return {}
    server = psutil.Process(pid)
    trees = {"server": [server], "workers": server.children(recursive=True)}
    return {name: sum(sum(each.cpu_times()[:2]) for each in tree) for name, tree in trees.items()}


@contextmanager
def null_servers(
    count: int, answer_bytes: int, processors: Sequence[int]
) -> Iterator[list[Server]]:
    """Run servers that do nothing but answer."""
    with ExitStack() as stack:
        with running_on(processors):
            processes = [
                stack.enter_context(_piped([*CLIENT, "null", str(answer_bytes)]))
                for _ in range(count)
            ]
        yield [Server("127.0.0.1", int(_read(process))) for process in processes]


def _parts(load: Load, count: int) -> list[Load]:
    """Divide clients and requests among so many processes."""
    return [
        Load(
            clients=len(range(number, load.clients, count)),
            requests=load.requests[number::count],
            drain=load.drain,
            ramp=load.ramp,
        )
        for number in range(count)
    ]


@contextmanager
def _client(processors: Sequence[int]) -> Iterator["subprocess.Popen[str]"]:
    with running_on(processors), _piped([*CLIENT, "ask"]) as process:
        yield process


@contextmanager
def _piped(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a program with pipes; it ends when stdin closes, or is ended."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _write(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin  # a pipe, see `_piped`
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _read(process: "subprocess.Popen[str]") -> str:
    """Return a line. Raises RuntimeError if the program has ended, having said why on stderr."""
    assert process.stdout  # a pipe, see `_piped`
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("A client has ended: see above.")
    return line
