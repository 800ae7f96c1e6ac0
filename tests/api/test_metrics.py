"""What the counters add up to, as Prometheus reads it."""

from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from emberd.api.metrics import FAST_S, Metrics
from emberd.api.record import Record
from emberd.pool.job import Timing
from emberd.worker.wire import Batch

ASKED = {"route": "/embed", "model": "m", "dialect": "native", "status": "200"}


def scrape(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the labels and value of every sample, by name."""
    registry = CollectorRegistry()
    registry.register(metrics)
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_request_is_counted_and_lies_in_each_bucket_from_its_time_on() -> None:
    metrics = Metrics()
    record = Record(route="/embed", model="m", texts=2, tokens=9, truncated=1)
    record.timing = Timing(model_s=0.25)
    for seconds in (0.001, 0.0011, 1000):
        metrics.answered(record, dialect="native", status="200", seconds=seconds)

    found = scrape(metrics)

    assert found["emberd_requests_total"] == [(ASKED, 3)]
    assert found["emberd_texts_total"] == [({"model": "m"}, 6)]
    assert found["emberd_tokens_total"] == [({"model": "m"}, 27)]
    assert found["emberd_truncated_texts_total"] == [({"model": "m"}, 3)]
    buckets = {labels["le"]: count for labels, count in found["emberd_request_seconds_bucket"]}
    assert list(buckets) == [*map(str, map(float, FAST_S)), "+Inf"]
    assert [buckets[le] for le in ("0.001", "0.0025", "120.0", "+Inf")] == [1, 2, 2, 3]
    assert found["emberd_request_seconds_count"] == [(ASKED, 3)]
    assert found["emberd_request_seconds_sum"] == [(ASKED, 1000.0021)]
    stages = {labels["stage"]: total for labels, total in found["emberd_stage_seconds_sum"]}
    assert stages == {"wait": 0, "queue": 0, "tokenize": 0, "model": 0.75, "encode": 0}


def test_a_refused_request_counts_no_texts() -> None:
    metrics = Metrics()
    metrics.answered(Record(), dialect="tei", status="hung_up", seconds=0.1)

    found = scrape(metrics)

    [(labels, count)] = found["emberd_requests_total"]
    assert (labels["route"], labels["model"], labels["status"]) == ("unknown", "", "hung_up")
    assert count == 1
    assert "emberd_texts_total" not in found


def test_batches_loads_and_unloads_are_counted_by_model() -> None:
    metrics = Metrics()
    metrics.loaded("m", 0.5, {"files": 0.2})
    metrics.ran("m", Batch(texts=2, tokens=30, padded_tokens=32, budget_tokens=64, model_s=0.5))
    metrics.ran("m", Batch(texts=1, tokens=9, padded_tokens=8, budget_tokens=0, model_s=0.5))
    metrics.unloaded("m", "idle")
    metrics.unloaded("n", "idle")

    found = scrape(metrics)

    of_m = {"model": "m"}
    assert (of_m, 2) in found["emberd_batches_total"]
    assert (of_m, 3) in found["emberd_batch_texts_total"]
    assert (of_m, 2) in found["emberd_batch_padding_tokens_total"]
    assert (of_m, 1.0) in found["emberd_batch_model_seconds_total"]
    assert (of_m, 1) in found["emberd_loads_total"]
    assert ({"model": "m", "phase": "all"}, 1) in found["emberd_load_seconds_count"]
    assert ({"model": "m", "reason": "idle"}, 1) in found["emberd_unloads_total"]
    assert ({"model": "n", "reason": "idle"}, 1) in found["emberd_unloads_total"]
    assert found["emberd_batch_fill_count"] == [(of_m, 2)]
