"""Have all replicas of a model the same vectors, and does one that is killed cost an answer?

    python benchmarks/replicas_alike.py --gpus 4 --model bert-base --out FILE.json

1. 1,000 passages by a server on each GPU alone, and again and again by one that has all of them,
   while clients keep each replica busy: fingerprints, and the lowest cosine to those of the first.
2. A replica is killed while they ask: how many answers failed or were wrong, and how long it was
   until there were as many replicas as before.

Clients are plain HTTP, which tries nothing again. Weights are random.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import machine
import made
import numpy as np
from servers import Program

from emberd.bench.texts import Texts
from emberd.replacing import replacing

COUNT, AT_ONCE = 1000, 50  # passages, and how many of them are in a request
LEAST = 0.9999  # of a right answer
KILLED_AFTER_S = 3.0
WITHIN_S = 120.0


def main() -> None:
    """Ask, kill, and write what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--model", choices=made.SIZES, default="bert-base")
    parser.add_argument("--compute", choices=("f32", "bf16", "f16"), default="f16")
    parser.add_argument("--seconds", type=float, default=15.0, help="of asking, with the kill")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emberd-alike-") as folder:
        model = made.model(asked.model, Path(folder) / "model", asked.tokenizer)
        home = made.home(
            Path(folder) / "home", model, compute=asked.compute, backend="mlx",
            more="replicas: auto",
        )  # fmt: skip
        found = measure(home, asked.gpus, asked.seconds)
    about = {"machine": machine.facts(), "model": asked.model, "compute": asked.compute}
    with replacing(asked.out, mode=0o644, sync=False) as file:
        file.write(json.dumps(about | {"gpus": asked.gpus} | found, indent=1).encode() + b"\n")
    print(json.dumps(found))


def measure(home: Path, gpus: int, seconds: float) -> dict[str, Any]:
    """Return what is said above."""
    texts = Texts(made.SEED).take(COUNT, made.PASSAGE_WORDS)
    parts = [texts[at : at + AT_ONCE] for at in range(0, COUNT, AT_ONCE)]
    alone, fingerprints = [], set()
    for gpu in range(gpus):
        with serving(home, str(gpu)) as client:
            alone.append(np.concatenate([vectors_of(client, part) for part in parts]))
            fingerprints.add(row_of(client)["fingerprint"])
    first = np.split(alone[0], len(parts))
    with serving(home, ",".join(map(str, range(gpus)))) as client:
        vectors_of(client, parts[0])
        started_s = until_there(client, gpus)
        lowest = 1.0
        with ThreadPoolExecutor(4 * gpus) as threads:
            answers = [*threads.map(lambda part: vectors_of(client, part), parts * 10)]
        for number, answer in enumerate(answers):
            lowest = min(lowest, cosine(answer, first[number % len(parts)]))
        fingerprints.add(row_of(client)["fingerprint"])
        killed = kill_one(client, parts, first, gpus, seconds)
    return {
        "texts": COUNT,
        "fingerprints": sorted(fingerprints),
        "lowest_cosine_alone": min(cosine(each, alone[0]) for each in alone),
        "lowest_cosine_together": lowest,
        "answers_together": len(answers),
        "all_started_s": started_s,
        "killed": killed,
    }


def kill_one(
    client: httpx2.Client,
    parts: Sequence[Sequence[str]],
    right: Sequence[np.ndarray[Any, Any]],
    gpus: int,
    seconds: float,
) -> dict[str, Any]:
    """Kill the last replica while clients ask."""
    counts = {"answers": 0, "failed": 0, "wrong": 0}
    slowest_s, lock = 0.0, threading.Lock()
    ends_s = time.monotonic() + seconds

    def ask(number: int) -> None:
        nonlocal slowest_s
        while time.monotonic() < ends_s:
            number = (number + 1) % len(parts)
            began_s = time.monotonic()
            try:
                answer = vectors_of(client, parts[number])
            except httpx2.HTTPError:
                kind = "failed"
            else:
                kind = "answers" if cosine(answer, right[number]) >= LEAST else "wrong"
            with lock:
                counts[kind] += 1
                slowest_s = max(slowest_s, time.monotonic() - began_s)

    with ThreadPoolExecutor(4 * gpus) as threads:
        asking = [threads.submit(ask, number) for number in range(4 * gpus)]
        time.sleep(KILLED_AFTER_S)
        pid = row_of(client)["pids"][-1]
        began_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)  # until that is known
        until_there(client, gpus)
        back_s = round(time.monotonic() - began_s, 2)
        for each in asking:
            each.result()
    return counts | {"slowest_s": round(slowest_s, 2), "all_back_s": back_s}


@contextmanager
def serving(home: Path, devices: str) -> Iterator[httpx2.Client]:
    """Run a server that sees these GPUs."""
    path = os.environ.get("PYTHONPATH", "")
    program = Program(
        name="emberd", folder=home,
        command=lambda port: [sys.executable, "-m", "emberd", "serve", "--port", str(port)],
        environment={
            "EMBERD_HOME": str(home), "CUDA_VISIBLE_DEVICES": devices, "PYTHONPATH": path,
        },
    )  # fmt: skip
    with program.run() as running:
        url = f"http://127.0.0.1:{running.server.port}"
        limits = httpx2.Limits(max_connections=100)
        with httpx2.Client(base_url=url, timeout=WITHIN_S, limits=limits) as client:
            yield client


def vectors_of(client: httpx2.Client, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Embed texts, computed anew: (texts, hidden size), float32."""
    answer = client.post(
        "/embed",
        json={"texts": texts, "cache": False},
        headers={"Accept": "application/octet-stream"},
    )
    answer.raise_for_status()
    return np.frombuffer(answer.content, np.float32).reshape(len(texts), -1)


def row_of(client: httpx2.Client) -> dict[str, Any]:
    """Return what the server says of the model."""
    rows = client.get("/models").raise_for_status().json()["models"]
    return next(row for row in rows if row["name"] == made.NAME)


def until_there(client: httpx2.Client, replicas: int) -> float:
    """Wait until so many replicas are ready; return the seconds."""
    began_s = time.monotonic()
    while row_of(client)["replicas"] < replicas:
        if time.monotonic() - began_s > WITHIN_S:
            sys.exit(f"There are not {replicas} replicas: {row_of(client)['notes']}")
        time.sleep(0.1)
    return round(time.monotonic() - began_s, 2)


def cosine(some: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> float:
    """Return the lowest cosine of unit vectors, row by row."""
    return float((some.astype(np.float64) * others).sum(axis=1).min())


if __name__ == "__main__":
    main()
