"""Measurements on one running server, as flat numbers named with their units."""

import json
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from emberd.bench.client import Connection, Server, ask_in_turns
from emberd.bench.texts import Texts
from emberd.errors import NoServerError
from emberd.pool.memory import cpu_seconds, memory_bytes

Numbers = dict[str, float]

MIB = 2**20
QUERY_PAUSE_S = 0.05
HEALTH_PAUSE_S = 0.02


def first_ms(server: Server, texts: Texts) -> float:
    """Return how long one query takes, including the connection and, if cold, the load."""
    request = server.embed(texts.queries(1))
    began_s = time.perf_counter()
    with Connection(server) as connection:
        connection.ask(request)
    return (time.perf_counter() - began_s) * 1000


def unload(server: Server) -> None:
    """Make the server unload the model."""
    named = {"model": server.model} if server.model else None
    body = json.dumps(named).encode() if named else b""
    with Connection(server) as connection:
        connection.ask(server.post("/unload", body))


def one_client(server: Server, texts: Texts, *, count: int, seconds: float) -> Numbers:
    """Measure one client that sends one query after another, up to `count` or `seconds`."""
    spent_s: list[float] = []
    until_s = time.perf_counter() + seconds
    with Connection(server) as connection:
        for query in texts.queries(5):
            connection.ask(server.embed([query]))
        while len(spent_s) < count and (not spent_s or time.perf_counter() < until_s):
            request = server.embed(texts.queries(1))
            began_s = time.perf_counter()
            connection.ask(request)
            spent_s.append(time.perf_counter() - began_s)
    return percentiles("short", spent_s)


def many_clients(server: Server, texts: Texts, *, clients: int, seconds: float) -> Numbers:
    """Measure several clients at once, each sending one query after another."""
    ready = iter_queries(texts)
    began_cpu_s = time.process_time()
    spent_s, passed_s = ask_in_turns(server, clients, seconds, lambda: server.embed([next(ready)]))
    return {
        "clients_requests_per_s": len(spent_s) / passed_s,
        **percentiles("clients", spent_s),
        "clients_client_cores": (time.process_time() - began_cpu_s) / passed_s,
    }


def iter_queries(texts: Texts) -> Iterator[str]:
    """Yield queries, generated in advance so that generating them does not delay requests."""
    while True:
        yield from texts.queries(2000)


def texts_per_s(server: Server, texts: Sequence[str], *, per_request: int) -> float:
    """Measure one bulk client that sends one request after another."""
    parts = [texts[at : at + per_request] for at in range(0, len(texts), per_request)]
    requests = [server.embed(part) for part in parts]
    with Connection(server) as connection:
        began_s = time.perf_counter()
        for request in requests:
            connection.ask(request)
        return len(texts) / (time.perf_counter() - began_s)


@dataclass(slots=True)
class Watch:
    """How long each request made during a job took, in seconds."""

    query_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)

    def numbers(self) -> Numbers:
        """Return percentiles of the answers' times."""
        found: Numbers = {}
        for name, spent_s in (("job_query", self.query_s), ("job_health", self.health_s)):
            if spent_s:
                found |= percentiles(name, spent_s)
                found[f"{name}_max_ms"] = max(spent_s) * 1000
                found[f"{name}_samples"] = float(len(spent_s))
        return found


@contextmanager
def watching(server: Server, queries: Iterable[str] | None, *, health: bool) -> Iterator[Watch]:
    """Send queries and `/health`, each on its own connection, while the body runs.

    Requests that were sent during the body count even if they are answered after it, so there is at
    least one of each, however short the body is.
    """
    watch = Watch()
    done = threading.Event()
    failed: list[Exception] = []

    def ask(requests: Iterable[bytes], spent_s: list[float], pause_s: float) -> None:
        try:
            with Connection(server) as connection:
                for request in requests:
                    began_s = time.perf_counter()
                    connection.ask(request)
                    spent_s.append(time.perf_counter() - began_s)
                    if done.wait(pause_s):
                        return
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            failed.append(error)

    threads = []
    if queries is not None:
        each = (server.embed([query]) for query in queries)
        threads.append(threading.Thread(target=ask, args=(each, watch.query_s, QUERY_PAUSE_S)))
    if health:
        same = iter(lambda: server.get("/health"), None)
        threads.append(threading.Thread(target=ask, args=(same, watch.health_s, HEALTH_PAUSE_S)))
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        done.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


def job(server: Server, texts: Texts, passages: Sequence[str], pid: int | None = None) -> Numbers:
    """Measure one request of many texts: alone, then during queries and `/health` requests.

    `pid`: the server's process, to see how many cores its workers use while the job is alone.
    """
    used: Numbers = {}
    with cores_used(pid, used):
        alone_s = len(passages) / texts_per_s(server, passages, per_request=len(passages))
    with watching(server, iter_queries(texts), health=True) as watch:
        beside_s = len(passages) / texts_per_s(server, passages, per_request=len(passages))
    return (
        watch.numbers()
        | used
        | {
            "job_texts": float(len(passages)),
            "job_alone_s": alone_s,
            "job_beside_s": beside_s,
            "job_loss": 1 - alone_s / beside_s,
        }
    )


@contextmanager
def cores_used(pid: int | None, numbers: Numbers) -> Iterator[None]:
    """Add to `numbers` how many cores the server's workers kept busy while the body ran.

    `machine_cores` are those that the server may use. Nothing is added without a `pid`.
    """
    if pid is None:
        yield
        return
    began_s, cpu_s = time.perf_counter(), _workers_cpu_s(pid)
    yield
    spent_s = time.perf_counter() - began_s
    numbers["machine_cores"] = float(_cores_of(pid))
    numbers["used_cores"] = (_workers_cpu_s(pid) - cpu_s) / spent_s


def _workers_cpu_s(pid: int) -> float:
    try:
        return sum(cpu_seconds(each.pid) for each in psutil.Process(pid).children(recursive=True))
    except psutil.Error:  # another user's
        return 0.0


def _cores_of(pid: int) -> int:
    affinity = getattr(psutil.Process, "cpu_affinity", None)  # macOS has none
    if affinity:
        with suppress(psutil.Error):
            return len(affinity(psutil.Process(pid)))
    return psutil.cpu_count() or 1


def tree_mib(pid: int) -> float:
    """Return the memory of a process and its descendants; shared pages count in each, in MiB.

    Raises:
        NoServerError: there is no such process, or we may not inspect it.
    """
    try:
        root = psutil.Process(pid)
        return sum(memory_bytes(each.pid) for each in (root, *root.children(recursive=True))) / MIB
    except psutil.Error as error:
        raise NoServerError(f"The memory of process {pid} cannot be read: {error}.") from None


def percentiles(name: str, spent_s: Sequence[float]) -> Numbers:
    """Return the 50th and 99th percentile in ms, by nearest rank."""
    ranked = sorted(spent_s)
    return {
        f"{name}_p{share}_ms": ranked[math.ceil(share / 100 * len(ranked)) - 1] * 1000
        for share in (50, 99)
    }
