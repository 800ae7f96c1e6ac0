"""`GET /metrics`: counters of what happened, and gauges that are read at each scrape.

Labels have few values: route templates, registry names, and our own dialects and statuses.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response

from emberd.api.byte_budget import ByteBudget
from emberd.api.openapi import ACCESS, NativeError, fails
from emberd.api.record import Record
from emberd.api.routes import Router
from emberd.pool.surface import PoolSurface
from emberd.worker.wire import Batch

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
LOAD_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)
Labels = tuple[str, ...]
COUNTED: Mapping[str, str] = {
    "texts": "Texts answered.",
    "tokens": "Tokens of answered texts, without padding.",
    "truncated_texts": "Texts cut.",
    "cached_texts": "Texts answered from the cache on disk.",
    "batches": "Batches run.",
    "batch_texts": "Texts in a batch.",
    "batch_tokens": "Tokens in batches, without padding.",
    "batch_padding_tokens": "Padding tokens in batches.",
    "batch_model_seconds": "Time the model ran.",
    "loads": "Workers that became ready.",
}
SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class Spread:
    """How many values were at most as large as each bound, and their sum: a histogram."""

    __slots__ = ("_bounds", "_counts", "count", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.count += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound as Prometheus writes it, with how many values it includes."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


@dataclass(slots=True)
class Totals:
    """What happened to one model since the server started: a counter for each name in `COUNTED`."""

    texts: int = 0
    tokens: int = 0
    truncated_texts: int = 0
    cached_texts: int = 0
    batches: int = 0
    batch_texts: int = 0
    batch_tokens: int = 0
    batch_padding_tokens: int = 0
    batch_model_seconds: float = 0.0
    loads: int = 0
    fill: Spread = field(default_factory=lambda: Spread(SHARE))
    stages: dict[str, Spread] = field(default_factory=lambda: defaultdict(lambda: Spread(FAST_S)))
    phases: dict[str, Spread] = field(default_factory=lambda: defaultdict(lambda: Spread(LOAD_S)))
    unloads: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Metrics(Collector):
    """The counters. An `Observer` of the pool.

    They are plain numbers until a scrape: prometheus-client's own counters have locks and look up
    their labels, which took a fifth of what the server does for a request.
    """

    def __init__(self) -> None:
        self._requests: dict[Labels, Spread] = defaultdict(lambda: Spread(FAST_S))
        self._of: dict[str, Totals] = defaultdict(Totals)

    def answered(self, record: Record, *, dialect: str, status: str, seconds: float) -> None:
        """Count one request; `status` is a number, or `hung_up`."""
        model = record.model or ""
        self._requests[record.route, model, dialect, status].add(seconds)
        if record.timing:
            totals = self._of[model]
            totals.texts += record.texts
            totals.tokens += record.tokens
            totals.truncated_texts += record.truncated
            totals.cached_texts += record.cached
            for stage, spent_s in record.timing.stages():
                totals.stages[stage].add(spent_s)

    def changed(self, model: str) -> None:
        """Do nothing: states are gauges, and read at each scrape."""

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """See `Observer`."""
        totals = self._of[model]
        totals.loads += 1
        for phase, spent_s in {**phases_s, "all": seconds}.items():
            totals.phases[phase].add(spent_s)

    def unloaded(self, model: str, reason: str) -> None:
        """See `Observer`."""
        self._of[model].unloads[reason] += 1

    def ran(self, model: str, batch: Batch) -> None:
        """See `Observer`."""
        totals = self._of[model]
        totals.batches += 1
        totals.batch_texts += batch.texts
        totals.batch_tokens += batch.tokens
        totals.batch_padding_tokens += max(0, batch.padded_tokens - batch.tokens)
        totals.batch_model_seconds += batch.model_s
        totals.fill.add(batch.padded_tokens / max(1, batch.budget_tokens))

    def collect(self) -> Iterator[Metric]:
        """Yield the counters and histograms."""
        asked = ("route", "model", "dialect", "status")
        requests = CounterMetricFamily("emberd_requests", "Requests.", labels=asked)
        for labels, spread in self._requests.items():
            requests.add_metric(labels, spread.count)
        yield requests
        yield _histogram(
            "request_seconds", "Time to answer a request.", asked, self._requests.items()
        )
        for name, what in COUNTED.items():
            counter = CounterMetricFamily(f"emberd_{name}", what, labels=["model"])
            for model, totals in self._of.items():
                counter.add_metric([model], getattr(totals, name))
            yield counter
        unloads = CounterMetricFamily(
            "emberd_unloads", "Workers that have ended, by reason.", labels=["model", "reason"]
        )
        for model, totals in self._of.items():
            for reason, count in totals.unloads.items():
                unloads.add_metric([model, reason], count)
        yield unloads
        every = self._of.items()
        yield _histogram(
            "stage_seconds",
            "Where answered requests spent their time: wait (for the model to be loaded), queue,"
            " tokenize, model (every batch with one of their texts), encode.",
            ("model", "stage"),
            (((model, stage), s) for model, t in every for stage, s in t.stages.items()),
        )
        yield _histogram(
            "batch_fill",
            "Padded tokens of a batch, relative to its budget.",
            ("model",),
            (((model,), t.fill) for model, t in every if t.batches),
        )
        yield _histogram(
            "load_seconds",
            "Time to load, by phase; `all` is from process start to ready.",
            ("model", "phase"),
            (((model, phase), s) for model, t in every for phase, s in t.phases.items()),
        )


def _histogram(
    name: str, what: str, labels: Labels, series: Iterable[tuple[Labels, Spread]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"emberd_{name}", what, labels=labels)
    for values, spread in series:
        family.add_metric(values, spread.buckets(), spread.sum)
    return family


class PoolCollector(Collector):
    """The state of the pool at the moment of a scrape."""

    def __init__(self, pool: PoolSurface, byte_budget: ByteBudget) -> None:
        self._pool = pool
        self._byte_budget = byte_budget

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges. Models that are not loaded have a fingerprint if they ever ran here."""
        queued = GaugeMetricFamily(
            "emberd_queued_requests", "Requests waiting for a worker.", labels=["model"]
        )
        in_flight = GaugeMetricFamily(
            "emberd_in_flight_requests", "Requests sent to a worker.", labels=["model"]
        )
        texts = GaugeMetricFamily(
            "emberd_queued_texts",
            "Texts without a vector yet; limits.max_queued_texts limits the sum.",
            labels=["model"],
        )
        size = GaugeMetricFamily(
            "emberd_held_bytes",
            "Bytes of bodies, texts and answers; limits.max_queued_bytes limits the sum.",
        )
        size.add_metric([], self._byte_budget.held_bytes)
        resident = GaugeMetricFamily("emberd_resident_models", "Models with a worker process.")
        memory = GaugeMetricFamily(
            "emberd_model_resident_bytes", "Memory of a model's workers.", labels=["model"]
        )
        workers = GaugeMetricFamily(
            "emberd_ready_workers", "Workers of a model that are ready.", labels=["model"]
        )
        space = InfoMetricFamily(
            "emberd_model", "Fingerprint of the vector space.", labels=["model"]
        )
        rows = self._pool.statuses()
        alive = [row for row in rows if row.pid]
        resident.add_metric([], len(alive))
        for model, count in self._pool.queued_texts().items():
            texts.add_metric([model], count)
        for row in rows:
            name = [row.name]
            if row.pid:
                memory.add_metric(name, row.memory_bytes)
                workers.add_metric(name, row.replicas)
            if row.pid or row.queued:
                queued.add_metric(name, row.queued)
                in_flight.add_metric(name, row.in_flight)
            if row.fingerprint:
                space.add_metric(name, {"fingerprint": row.fingerprint})
        yield from (queued, in_flight, texts, size, resident, memory, workers, space)


def create_router(metrics: Metrics, pool: PoolSurface, byte_budget: ByteBudget) -> Router:
    """Return the route. A scrape is cheap and loads no model."""
    registry = CollectorRegistry()
    for collector in (metrics, PoolCollector(pool, byte_budget)):
        registry.register(collector)
    router = Router()

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus text.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **fails(NativeError, ACCESS),
        },
    )
    async def show(request: Request) -> Response:
        """Return Prometheus text, or OpenMetrics for clients that accept it."""
        try:
            encode, media_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # an invalid version
            encode, media_type = choose_encoder("")
        return Response(encode(registry), media_type=media_type)

    return router
