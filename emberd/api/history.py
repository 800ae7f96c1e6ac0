"""The last 15 minutes, second by second: what was embedded, how long it took, what was loaded.

Plain numbers, and no timer: whoever keeps the time says when a second ends. Seconds in which nobody
watched and nothing happened are left out.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emberd.api.record import Record
from emberd.worker.wire import Batch

SECONDS = 900


@dataclass(slots=True)
class Second:
    """What has happened in the second that is not over."""

    texts: int = 0
    tokens: int = 0
    requests: int = 0
    answered_s: list[float] = field(default_factory=list)
    left: list[dict[str, str]] = field(default_factory=list)


class History:
    """A ring of samples, the oldest first."""

    def __init__(self) -> None:
        self._ring: deque[dict[str, Any]] = deque(maxlen=SECONDS)
        self._now = Second()

    def answered(self, record: Record, seconds: float) -> None:
        """Count a request of a model; only one with texts says how long answers take."""
        if record.model:
            self._now.requests += 1
            if record.timing and record.texts:
                self._now.texts += record.cached
                self._now.answered_s.append(seconds)

    def ran(self, batch: Batch) -> None:
        """Count what was computed; a large request counts while it is, not when it ends."""
        self._now.texts += batch.texts
        self._now.tokens += batch.tokens

    def left(self, model: str, reason: str) -> None:
        """Note that a model's memory has been given back."""
        self._now.left.append({"model": model, "reason": reason})

    def end_second(
        self, at_s: int, *, queued: int, memory: Mapping[str, int], server_bytes: int
    ) -> dict[str, Any]:
        """Keep the second that has ended as a sample, and return it.

        Args:
            at_s: when it began, since 1970.
            queued: texts that have no vector yet.
            memory: bytes of each loaded model's workers.
            server_bytes: memory of the server's own process.
        """
        now, self._now = self._now, Second()
        times = sorted(now.answered_s)
        sample = {
            "at_s": at_s,
            "texts": now.texts,
            "tokens": now.tokens,
            "requests": now.requests,
            "p50_ms": _percentile_ms(times, 0.5),
            "p99_ms": _percentile_ms(times, 0.99),
            "queued": queued,
            "memory": memory,
            "server_bytes": server_bytes,
            "left": now.left,
        }
        self._ring.append(sample)
        return sample

    def samples(self) -> list[dict[str, Any]]:
        """Return what is left of the last 15 minutes."""
        oldest_s = time.time() - SECONDS
        while self._ring and self._ring[0]["at_s"] < oldest_s:
            self._ring.popleft()
        return [*self._ring]


def _percentile_ms(times_s: list[float], share: float) -> float | None:
    """Return the nearest rank of sorted times; None if there are none."""
    if not times_s:
        return None
    return round(times_s[math.ceil(share * len(times_s)) - 1] * 1000, 1)
