"""`GET /metrics`: counters of what happened, and gauges that are read at each scrape.

Labels have few values: route templates, registry names, and our own dialects and statuses.
"""

from collections.abc import Iterator, Mapping

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from emberd.api.byte_budget import ByteBudget
from emberd.api.openapi import ACCESS, NativeError, fails
from emberd.api.record import Record
from emberd.pool.manager import Pool
from emberd.worker.wire import Batch

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
LOAD_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)
SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class Metrics:
    """The counters, in a registry of their own. An `Observer` of the pool."""

    def __init__(self) -> None:
        self.registry = every = CollectorRegistry()
        model = ["model"]
        asked = ["route", "model", "dialect", "status"]
        self._requests = Counter("emberd_requests", "Requests.", asked, registry=every)
        self._seconds = Histogram(
            "emberd_request_seconds",
            "Time to answer a request.",
            asked,
            registry=every,
            buckets=FAST_S,
        )
        self._texts = Counter("emberd_texts", "Texts answered.", model, registry=every)
        self._tokens = Counter(
            "emberd_tokens",
            "Tokens of answered texts, without padding.",
            model,
            registry=every,
        )
        self._truncated = Counter("emberd_truncated_texts", "Texts cut.", model, registry=every)
        self._stages = Histogram(
            "emberd_stage_seconds",
            "Where answered requests spent their time: wait (for the model to be loaded), queue,"
            " tokenize, model (every batch with one of their texts), encode.",
            ["model", "stage"],
            registry=every,
            buckets=FAST_S,
        )
        self._batches = Counter("emberd_batches", "Batches run.", model, registry=every)
        self._batch_texts = Counter(
            "emberd_batch_texts", "Texts in a batch.", model, registry=every
        )
        self._batch_tokens = Counter(
            "emberd_batch_tokens", "Tokens in batches, without padding.", model, registry=every
        )
        self._padding = Counter(
            "emberd_batch_padding_tokens", "Padding tokens in batches.", model, registry=every
        )
        self._batch_seconds = Counter(
            "emberd_batch_model_seconds", "Time the model ran.", model, registry=every
        )
        self._fill = Histogram(
            "emberd_batch_fill", "Padded tokens of a batch, relative to its budget.", model,
            registry=every, buckets=SHARE,
        )  # fmt: skip
        self._loads = Counter("emberd_loads", "Workers that became ready.", model, registry=every)
        self._load_seconds = Histogram(
            "emberd_load_seconds",
            "Time to load, by phase; `all` is from process start to ready.",
            ["model", "phase"],
            registry=every,
            buckets=LOAD_S,
        )
        self._unloads = Counter(
            "emberd_unloads", "Workers that have ended, by reason.", ["model", "reason"],
            registry=every,
        )  # fmt: skip

    def answered(self, record: Record, *, dialect: str, status: str, seconds: float) -> None:
        """Count one request; `status` is a number, or `hung_up`."""
        model = record.model or ""
        labels = (record.route, model, dialect, status)
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(seconds)
        if record.timing:
            self._texts.labels(model).inc(record.texts)
            self._tokens.labels(model).inc(record.tokens)
            self._truncated.labels(model).inc(record.truncated)
            for stage, spent_s in record.timing.stages():
                self._stages.labels(model, stage).observe(spent_s)

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """See `Observer`."""
        self._loads.labels(model).inc()
        for phase, spent_s in {**phases_s, "all": seconds}.items():
            self._load_seconds.labels(model, phase).observe(spent_s)

    def unloaded(self, model: str, reason: str) -> None:
        """See `Observer`."""
        self._unloads.labels(model, reason).inc()

    def ran(self, model: str, batch: Batch) -> None:
        """See `Observer`."""
        self._batches.labels(model).inc()
        self._batch_texts.labels(model).inc(batch.texts)
        self._batch_tokens.labels(model).inc(batch.tokens)
        self._padding.labels(model).inc(max(0, batch.padded_tokens - batch.tokens))
        self._batch_seconds.labels(model).inc(batch.model_s)
        self._fill.labels(model).observe(batch.padded_tokens / max(1, batch.budget_tokens))


class PoolCollector(Collector):
    """The state of the pool at the moment of a scrape."""

    def __init__(self, pool: Pool, byte_budget: ByteBudget) -> None:
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


def create_router(metrics: Metrics, pool: Pool, byte_budget: ByteBudget) -> APIRouter:
    """Return the route. A scrape is cheap and loads no model."""
    metrics.registry.register(PoolCollector(pool, byte_budget))
    router = APIRouter()

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
        return Response(encode(metrics.registry), media_type=media_type)

    return router
