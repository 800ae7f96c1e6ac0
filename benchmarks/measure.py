"""What is measured on one running server: flat numbers, named with their units."""

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from client import Client, embed_body
from servers import Running
from texts import Texts

Numbers = dict[str, float]

SHORT_WORDS = 8
SHORT_REQUESTS = 100
BATCH_TEXTS, BATCH_WORDS = 32, 200
BUSY_S = 3.0  # batches follow one another until so much time has been watched
POLL_PAUSE_S = 0.003
CLIENTS = 8
CLIENTS_S = 4.0
SETTLE_S = 1.5


def life(server: Running, texts: Texts) -> Numbers:
    """Take a server that just started through its first requests, its work and an unload."""
    time.sleep(SETTLE_S)
    numbers = {"start_s": server.start_s}
    numbers |= memory(server, "idle")
    numbers["first_embed_s"] = embed_s(server, texts)
    numbers |= phases(server)
    time.sleep(SETTLE_S)
    numbers |= memory(server, "loaded")
    numbers |= short_texts(server, texts)
    numbers |= quiet_health(server)
    numbers |= busy_health(server, texts)
    numbers |= many_clients(server, texts)
    numbers |= memory(server, "worked")
    numbers["unload_s"] = unload_s(server)
    return numbers | memory(server, "unloaded")


def after_rest(server: Running, texts: Texts) -> Numbers:
    """Measure what is left some time after the unload, and how it loads again.

    Twice, because a system may have dropped files from its page cache meanwhile: the second time
    they are there.
    """
    numbers = memory(server, "rested")
    numbers["first_embed_after_rest_s"] = embed_s(server, texts)
    unload_s(server)
    time.sleep(SETTLE_S)
    numbers["first_embed_after_unload_s"] = embed_s(server, texts)
    return numbers


def memory(server: Running, when: str) -> Numbers:
    """Return the memory of the whole process tree."""
    return {f"{when}_mib": server.resident_mib(), f"{when}_private_mib": server.private_mib()}


def embed_s(server: Running, texts: Texts) -> float:
    """Return how long one short text takes, connecting included."""
    body = embed_body(texts.take(1, SHORT_WORDS))

    def ask() -> None:
        with Client(server.port) as client:
            client.post("/embed", body)

    return _timed_s(ask)


def unload_s(server: Running) -> float:
    """Return how long an unload takes."""
    with Client(server.port) as client:
        return _timed_s(client.post, "/unload")


def phases(server: Running) -> Numbers:
    """Return what emberd says of the load that just was; nothing of another server."""
    with Client(server.port) as client:
        health = json.loads(client.get("/health"))
        if "name" not in health:
            return {}
        rows = json.loads(client.get("/models"))["models"]
    row = next(row for row in rows if row["name"] == health["name"])
    parts = {f"phase_{name}_s": float(spent_s) for name, spent_s in row["phases_s"].items()}
    return {"load_s": float(row["last_load_s"]), **parts}


def short_texts(server: Running, texts: Texts) -> Numbers:
    """One client, one short text after another, the model warm."""
    bodies = [embed_body(texts.take(1, SHORT_WORDS)) for _ in range(SHORT_REQUESTS + 5)]
    with Client(server.port) as client:
        spent_s = [_timed_s(client.post, "/embed", body) for body in bodies]
    return _percentiles("short", spent_s[5:])


def quiet_health(server: Running) -> Numbers:
    """`GET /health` of a server that does nothing else: the floor of client and server."""
    spent_s = []
    with Client(server.port) as client:
        for _ in range(SHORT_REQUESTS):
            spent_s.append(_timed_s(client.get, "/health"))
            time.sleep(POLL_PAUSE_S)
    return _percentiles("quiet_health", spent_s)


def busy_health(server: Running, texts: Texts) -> Numbers:
    """`GET /health` on a second connection while a batch runs; only what began meanwhile."""
    spent_s: list[float] = []
    batches_s: list[float] = []
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with Client(server.port) as client, Client(server.port) as bulk, ThreadPoolExecutor(1) as pool:
        while time.perf_counter() - began_s < BUSY_S:
            body = embed_body(texts.take(BATCH_TEXTS, BATCH_WORDS))
            batch = pool.submit(_timed_s, bulk.post, "/embed", body)
            time.sleep(0.02)  # the batch is in before the first question
            while not batch.done():
                spent_s.append(_timed_s(client.get, "/health"))
                time.sleep(POLL_PAUSE_S)
            batches_s.append(batch.result())
    passed_s = time.perf_counter() - began_s
    return _percentiles("busy_health", spent_s) | {
        "busy_health_max_ms": max(spent_s) * 1000,
        "busy_health_samples": len(spent_s),
        "busy_health_client_cores": (time.process_time() - began_cpu_s) / passed_s,
        "batches": len(batches_s),
        "batch_s": sorted(batches_s)[len(batches_s) // 2],
    }


def many_clients(server: Running, texts: Texts) -> Numbers:
    """Some clients at once, each one short text after another for some seconds."""
    lock = threading.Lock()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()

    def ask(_: int) -> int:
        done = 0
        with Client(server.port) as client:
            while time.perf_counter() - began_s < CLIENTS_S:
                with lock:
                    body = embed_body(texts.take(1, SHORT_WORDS))
                client.post("/embed", body)
                done += 1
        return done

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = sum(pool.map(ask, range(CLIENTS)))
    passed_s = time.perf_counter() - began_s
    return {
        "clients_requests_per_s": done / passed_s,
        "clients_client_cores": (time.process_time() - began_cpu_s) / passed_s,
    }


def vectors(server: Running, texts: Sequence[str]) -> list[list[float]]:
    """Embed texts one by one."""
    with Client(server.port) as client:
        answers = [json.loads(client.post("/embed", embed_body([text]))) for text in texts]
    return [answer["embeddings"][0] for answer in answers]


def cosines(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> list[float]:
    """Return the cosine of each pair."""
    return [
        _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b)) for a, b in zip(some, others, strict=True)
    ]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _timed_s(work: Callable[..., object], *arguments: object) -> float:
    began_s = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began_s


def _percentiles(name: str, spent_s: Sequence[float]) -> Numbers:
    """Nearest rank."""
    ranked = sorted(spent_s)
    at = {share: ranked[math.ceil(share / 100 * len(ranked)) - 1] * 1000 for share in (50, 99)}
    return {f"{name}_p{share}_ms": spent_ms for share, spent_ms in at.items()}
