"""A model of many replicas behind an ingress: what they give, how long one waits, where it ends.

`scaling_model_report.py` asks it, with numbers that were measured.

Clients send requests of so many texts. An ingress is one event loop, which takes time for each
request and for each text of it. It divides a request into jobs, one for each replica that has
nothing to do, and gives each to the one with the fewest texts of two that it looks at (Ray Serve's
"power of two choices"). A replica computes what waits, up to a batch, in the time of one pass and
of its tokens. It is a simulation of events (SimPy), because queues that feed each other in batches
have no formula.
"""

import math
import random
import statistics
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

from emberd.ray.scale import DOWNSCALE_S, TARGET, UPSCALE_S

LOOK_S = 1.0
Events = Generator[simpy.Event, Any, None]
Rate = Callable[[float], float]
"""Requests a second at a time."""


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
    """Clients that wait for each answer, or, with a rate, requests that come whatever happens."""

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
            seconds = self.hardware.pass_s + batch * self.tokens_a_text / self.hardware.tokens_per_s
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

    def arrivals(self, rate: Rate) -> Events:
        """Send requests whether or not earlier ones are answered."""
        while True:
            wait = self.chance.expovariate(max(rate(self.env.now), 1e-9))
            yield self.env.timeout(min(wait, LOOK_S))
            if wait <= LOOK_S:  # else it is drawn anew, as the rate may have changed
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
    """When replicas start and end: what `emberd ray config` writes, and Ray's own defaults.

    These are in ray.serve.config.AutoscalingConfig of Ray 2.60.
    """

    least: int = 0
    most: int = 64
    target_ongoing: float = TARGET
    look_back_s: float = 30.0
    up_s: float = UPSCALE_S
    down_s: float = DOWNSCALE_S
    every_s: float = 1.0


def autoscaled(
    hardware: Hardware,
    ingress: Ingress,
    load: Load,
    policy: Policy,
    rate: Rate,
    *,
    until_s: float,
) -> tuple[list[tuple[float, float]], list[int]]:
    """Return (when, how long) of each answer, and how many replicas there were each second."""
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
