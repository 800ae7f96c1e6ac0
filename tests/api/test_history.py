"""The ring of seconds: what each is made of, and how long it is kept."""

import time

from emberd.api.history import SECONDS, History
from emberd.api.record import Record
from emberd.pool.job import Timing
from emberd.worker.wire import Batch


def record(*, texts: int = 1, cached: int = 0) -> Record:
    """Return the record of a request that was answered."""
    return Record(route="/embed", model="m", texts=texts, cached=cached, timing=Timing())


def end(history: History, at_s: int) -> dict[str, object]:
    """End a second in which nothing is loaded."""
    return history.end_second(at_s, queued=0, memory={}, server_bytes=1)


def test_percentiles_are_times_that_a_request_took() -> None:
    history = History()
    for milliseconds in range(1, 201):
        history.answered(record(), milliseconds / 1000)

    sample = end(history, int(time.time()))

    assert (sample["requests"], sample["p50_ms"], sample["p99_ms"]) == (200, 100.0, 198.0)
    assert end(history, int(time.time()))["p50_ms"] is None  # the next second begins anew


def test_texts_are_counted_as_they_are_computed_or_found_on_disk() -> None:
    history = History()
    history.ran(Batch(texts=3, tokens=30, padded_tokens=32, budget_tokens=64, model_s=0.5))
    history.answered(record(texts=5, cached=2), 0.1)

    sample = end(history, int(time.time()))

    assert (sample["texts"], sample["tokens"]) == (5, 30)


def test_requests_without_texts_or_a_model_say_nothing_of_how_long_answers_take() -> None:
    history = History()
    history.answered(record(texts=0), 3.0)  # a load
    history.answered(Record(route="/jobs"), 3.0)

    sample = end(history, int(time.time()))

    assert (sample["requests"], sample["p50_ms"]) == (1, None)


def test_fifteen_minutes_are_kept_however_few_seconds_they_have() -> None:
    history = History()
    now_s = int(time.time())
    for at_s in (now_s - SECONDS - 60, now_s - SECONDS + 60, now_s):
        end(history, at_s)
    assert [sample["at_s"] for sample in history.samples()] == [now_s - SECONDS + 60, now_s]

    for at_s in range(now_s, now_s + 2 * SECONDS):
        end(history, at_s)

    assert len(history.samples()) == SECONDS
