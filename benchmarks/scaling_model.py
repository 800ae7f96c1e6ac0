"""A model of many replicas behind an ingress: what they give, how long one waits, where it ends.

    python benchmarks/scaling_model.py check        beside what was measured, from the results
    python benchmarks/scaling_model.py replicas     1 to 64 replicas: rate, waiting, what is full
    python benchmarks/scaling_model.py jobs         10^9 texts: hours of a machine, by hardware
    python benchmarks/scaling_model.py autoscaling  a day's queries, with Ray Serve's policy

Clients send requests of so many texts. An ingress is one event loop, which takes time for each
request and for each text of it. It divides a request into jobs, one for each replica that has
nothing to do, and gives each to the one with the fewest texts of two that it looks at (Ray Serve's
"power of two choices"). A replica computes what waits, up to a batch, in the time of one pass and of
its tokens. It is a simulation of events (SimPy), because queues that feed each other in batches have
no formula. Its numbers come from measurements; `benchmarks/results` has them.
"""

import argparse
import json
import math
import random
import statistics
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import simpy

RESULTS = Path(__file__).parent / "results"
REPLICAS = (1, 2, 4, 8, 16, 32, 64)
Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What one replica is made of.

    Attributes:
        name: processor or GPU, and the sizes of the model.
        pass_s: what a batch takes, however little is in it.
        tokens_per_s: what it computes of large batches, tokenizing and all.
        batch_tokens: the most tokens in a batch.
        start_s: until a new replica answers.
    """

    name: str
    pass_s: float
    tokens_per_s: float
    batch_tokens: int
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """The event loop in front: seconds of it for each request, and for each of its texts."""

    request_s: float
    text_s: float
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Clients that wait for each answer, or, with a rate, requests that nobody waits for to send."""

    texts: int
    tokens: float
    clients: int = 0
    requests_per_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What came of it: `busy` are shares of the time."""

    texts_per_s: float
    p50_ms: float
    p99_ms: float
    busy_ingress: float
    busy_replicas: float

    @property
    def full(self) -> str:
        """What is in the way of more."""
        if max(self.busy_ingress, self.busy_replicas) < 0.9:
            return "the clients"
        return "the ingress" if self.busy_ingress > self.busy_replicas else "the replicas"


@dataclass(slots=True, eq=False)
class Replica:
    """A worker with what waits for it: numbers of texts, and the event that ends each."""

    env: simpy.Environment
    hardware: Hardware
    tokens_a_text: float
    waiting: simpy.Store
    texts: int = 0
    busy_s: float = 0.0

    def work(self) -> Events:
        """Compute batch after batch."""
        most = max(1, int(self.hardware.batch_tokens / self.tokens_a_text))
        held: list[list[Any]] = []
        while True:
            held = held or [(yield self.waiting.get())]
            while self.waiting.items and sum(job[0] for job in held) < most:
                held.append((yield self.waiting.get()))
            batch = min(most, sum(job[0] for job in held))
            seconds = (
                self.hardware.pass_s + batch * self.tokens_a_text / self.hardware.tokens_per_s
            )
            yield self.env.timeout(seconds)
            self.busy_s += seconds
            self.texts -= batch
            while batch:
                now = min(batch, held[0][0])
                held[0][0] -= now
                batch -= now
                if not held[0][0]:
                    held.pop(0)[1].succeed()


@dataclass(slots=True)
class Cluster:
    """Replicas behind ingresses, in simulated time."""

    env: simpy.Environment
    hardware: Hardware
    ingress: Ingress
    load: Load
    chance: random.Random
    replicas: list[Replica] = field(default_factory=list)
    loops: list[simpy.Resource] = field(default_factory=list)
    loop_s: float = 0.0
    ongoing: int = 0
    took_s: list[tuple[float, float]] = field(default_factory=list)  # when, and how long

    def __post_init__(self) -> None:
        self.loops = [simpy.Resource(self.env) for _ in range(self.ingress.count)]

    def add(self) -> None:
        """Start a replica that is ready at once."""
        new = Replica(self.env, self.hardware, self.load.tokens, simpy.Store(self.env))
        self.env.process(new.work())
        self.replicas.append(new)

    def request(self) -> Events:
        """Send one request and wait for its answer."""
        began = self.env.now
        self.ongoing += 1
        with self.chance.choice(self.loops).request() as turn:
            yield turn
            seconds = self.ingress.request_s + self.load.texts * self.ingress.text_s
            self.loop_s += seconds
            yield self.env.timeout(seconds)
        while not self.replicas:
            yield self.env.timeout(0.1)
        yield self.env.all_of([self._given(part) for part in self._parts()])
        self.ongoing -= 1
        self.took_s.append((self.env.now, self.env.now - began))

    def _parts(self) -> Iterator[int]:
        idle = sum(not replica.texts for replica in self.replicas)
        count = max(1, min(idle, self.load.texts))
        for number in range(count):
            yield (number + 1) * self.load.texts // count - number * self.load.texts // count

    def _given(self, texts: int) -> simpy.Event:
        two = self.chance.sample(self.replicas, min(2, len(self.replicas)))
        idle = [replica for replica in self.replicas if not replica.texts]
        chosen = idle[0] if idle else min(two, key=lambda replica: replica.texts)
        done = self.env.event()
        chosen.texts += texts
        chosen.waiting.put([texts, done])
        return done

    def client(self) -> Events:
        """Send requests, one after another."""
        while True:
            yield self.env.process(self.request())

    def arrivals(self, rate: Any) -> Events:  # noqa: ANN401 - requests a second, at a time
        """Send requests whether or not earlier ones are answered."""
        while True:
            yield self.env.timeout(self.chance.expovariate(max(rate(self.env.now), 1e-9)))
            self.env.process(self.request())


def run(
    hardware: Hardware, ingress: Ingress, load: Load, replicas: int, *, answers: int = 3000
) -> Outcome:
    """Simulate until so many answers came; the first tenth of the time does not count."""
    env = simpy.Environment()
    cluster = Cluster(env, hardware, ingress, load, random.Random(25))  # noqa: S311
    for _ in range(replicas):
        cluster.add()
    for _ in range(load.clients):
        env.process(cluster.client())
    if load.requests_per_s:
        env.process(cluster.arrivals(lambda _now: load.requests_per_s))
    while len(cluster.took_s) < answers:
        env.step()
    counted = [took for at, took in cluster.took_s if at > env.now / 10]
    seconds = env.now * 0.9
    return Outcome(
        texts_per_s=len(counted) * load.texts / seconds,
        p50_ms=1000 * statistics.median(counted),
        p99_ms=1000 * statistics.quantiles(counted, n=100)[98],
        busy_ingress=cluster.loop_s / env.now / ingress.count,
        busy_replicas=sum(each.busy_s for each in cluster.replicas) / env.now / replicas,
    )


# -- Ray Serve's autoscaling -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Its defaults: ray.serve.config.AutoscalingConfig of Ray 2.56."""

    least: int = 0
    most: int = 64
    target_ongoing: float = 2.0
    look_back_s: float = 30.0
    up_s: float = 30.0
    down_s: float = 600.0
    every_s: float = 1.0


def autoscaled(
    hardware: Hardware, ingress: Ingress, load: Load, policy: Policy, rate: Any, *, until_s: float  # noqa: ANN401
) -> tuple[list[tuple[float, float]], list[int]]:
    """Return (when, how long) of each answer, and how many replicas there were, second by second."""
    env = simpy.Environment()
    cluster = Cluster(env, hardware, ingress, load, random.Random(25))  # noqa: S311
    for _ in range(policy.least):
        cluster.add()
    seen: list[int] = []

    def scale() -> Events:
        starting, seen_ongoing, above_s, below_s = 0, list[int](), 0.0, 0.0

        def start() -> Events:
            nonlocal starting
            yield env.timeout(hardware.start_s)
            starting -= 1
            cluster.add()

        while True:
            yield env.timeout(policy.every_s)
            seen_ongoing.append(cluster.ongoing)
            window = seen_ongoing[-round(policy.look_back_s / policy.every_s) :]
            there = len(cluster.replicas) + starting
            wanted = math.ceil(statistics.fmean(window) / policy.target_ongoing)
            wanted = min(max(wanted, policy.least), policy.most)
            above_s = above_s + policy.every_s if wanted > there else 0.0
            below_s = below_s + policy.every_s if wanted < there else 0.0
            if wanted > there and (above_s >= policy.up_s or not there):
                starting += wanted - there
                for _ in range(wanted - there):
                    env.process(start())
            elif wanted < there and below_s >= policy.down_s:
                idle = [each for each in cluster.replicas if not each.texts]
                for each in idle[: there - wanted]:
                    cluster.replicas.remove(each)
            seen.append(len(cluster.replicas))

    env.process(scale())
    env.process(cluster.arrivals(rate))
    env.run(until_s)
    return cluster.took_s, seen


# -- what was measured -------------------------------------------------------------------------------

PASSAGE = 99.1  # tokens: the benchmark's passages
BULK = Load(texts=100, tokens=PASSAGE, clients=8)
SINGLE = Load(texts=1, tokens=PASSAGE, clients=64)
# `server_cores` of a run, divided by its requests and texts a second: see `loop_costs`.
HTTP = Ingress(request_s=0.28e-3, text_s=9e-6)
XEON = "Xeon with AMX (family 6, model 207)"
# `pass_s`: the time of a query in the engine; `tokens_per_s`: that of a bulk run, of which the
# passes are taken off; `start_s`: `first_ms`.
HARDWARE = {
    "h200-bert-base": Hardware(
        name="one H200, BERT-base, f16", pass_s=2e-3, tokens_per_s=900e3, batch_tokens=32768,
        start_s=1.4,
    ),
    "h200-minilm": Hardware(
        name="one H200, MiniLM, f16", pass_s=1.8e-3, tokens_per_s=1.9e6, batch_tokens=32768,
        start_s=1.2,
    ),
    "xeon-16": Hardware(
        name=f"16 cores of a {XEON}, MiniLM, bf16", pass_s=2.2e-3, tokens_per_s=118e3,
        batch_tokens=16 * 512, start_s=0.4,
    ),
    "xeon-2": Hardware(
        name=f"2 cores of a {XEON}, MiniLM, bf16", pass_s=1.7e-3, tokens_per_s=24e3,
        batch_tokens=2 * 512, start_s=0.4,
    ),
}  # fmt: skip
MEASURED = (
    ("h200-bert-base", "scaling-h200-bert-base.json", "1 GPU", 1),
    ("h200-bert-base", "scaling-h200-bert-base.json", "2 GPUs", 2),
    ("h200-minilm", "scaling-h200-minilm.json", "1 GPU", 1),
    ("xeon-16", "scaling-xeon-amx.json", "16 cores", 1),
    ("xeon-2", "scaling-xeon-amx.json", "2 cores", 1),
)


def check() -> Iterator[str]:
    """Yield lines: what the model says beside what was measured."""
    yield f"{'':34}{'measured':>18}{'model':>18}"
    for name, file, column, replicas in MEASURED:
        numbers = json.loads((RESULTS / file).read_text())["columns"][column]["numbers"]["emberd"]
        for load, key in ((BULK, "bulk"), (SINGLE, "clients")):
            rate, p50 = (numbers[f"{key}_{what}"]["median"] for what in ("texts_per_s", "p50_ms"))
            found = run(HARDWARE[name], HTTP, load, replicas)
            yield (
                f"{name}, {column}, {key:8}".ljust(34)
                + f"{rate:9.0f}/s {p50:5.0f} ms{found.texts_per_s:9.0f}/s {found.p50_ms:5.0f} ms"
            )


def replicas(name: str, ingress: Ingress) -> Iterator[str]:
    """Yield lines: 1 to 64 replicas, with as many clients as are needed to fill them."""
    hardware = HARDWARE[name]
    yield f"{hardware.name}; ingresses: {ingress.count}"
    for load in (BULK, SINGLE):
        one = 0.0
        for count in REPLICAS:
            given = replace(load, clients=load.clients * count)
            found = run(hardware, ingress, given, count, answers=max(3000, 40 * given.clients))
            one = one or found.texts_per_s
            yield (
                f"{load.texts:4} texts a request {count:3} replicas {found.texts_per_s:9.0f} texts/s"
                f" {found.texts_per_s / one / count:5.0%} each, p50 {found.p50_ms:5.0f} ms,"
                f" p99 {found.p99_ms:5.0f} ms, full: {found.full}"
            )


def jobs(texts: float = 1e9) -> Iterator[str]:
    """Yield lines: how long replicas compute for so many passages, if the ingress does not end it."""
    for hardware in HARDWARE.values():
        found = run(hardware, HTTP, BULK, 1)
        hours = texts / found.texts_per_s / 3600
        yield (
            f"{hardware.name}: {found.texts_per_s:.0f} texts/s; {texts:.0e} texts: {hours:,.1f} hours"
            f" of it, a million: {3600 * hours * 1e6 / texts:,.0f} s; 64 of them: {hours / 64:,.1f} h"
        )


def day(name: str, policy: Policy, *, hour_s: float = 3600.0) -> Iterator[str]:
    """Yield lines: queries whose rate follows a day, from nothing at night to 20 times a replica's."""
    hardware, load = HARDWARE[name], Load(texts=1, tokens=12.0)
    most = 2 / (hardware.pass_s + load.tokens / hardware.tokens_per_s)

    def rate(now: float) -> float:
        return most * max(0.0, math.sin(math.pi * (now / hour_s - 7) / 12))

    took, there = autoscaled(hardware, HTTP, load, policy, rate, until_s=24 * hour_s)
    for hour in range(0, 24, 3):
        at, end = hour * hour_s, (hour + 3) * hour_s
        found = sorted(each for when, each in took if at <= when < end)
        seen = there[int(at / policy.every_s) : int(end / policy.every_s)]
        waits = (
            f"p50 {1000 * found[len(found) // 2]:6.1f} ms, p99 {1000 * found[len(found) * 99 // 100]:8.1f} ms"
            if found
            else "nobody asked"
        )
        yield f"{hour:2} to {hour + 3:2} h: {len(found):7} queries, {min(seen)} to {max(seen)} replicas, {waits}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("check", "replicas", "jobs", "autoscaling"))
    parser.add_argument("--hardware", choices=HARDWARE, default="h200-bert-base")
    parser.add_argument("--ingresses", type=int, default=1)
    parser.add_argument("--request-ms", type=float, help="of an ingress, for each request")
    given = parser.parse_args(arguments)
    ingress = replace(HTTP, count=given.ingresses)
    if given.request_ms:
        ingress = replace(ingress, request_s=given.request_ms / 1000)
    lines = {
        "check": check,
        "replicas": lambda: replicas(given.hardware, ingress),
        "jobs": jobs,
        "autoscaling": lambda: day(given.hardware, Policy(), hour_s=600.0),
    }[given.what]
    for line in lines():
        print(line)


if __name__ == "__main__":
    main()
