"""The last 200 requests: what the log has of each, and when it ended. Never a text, vector or path.

Requests that only look and are answered well are left out: a watchdog's would soon be the only
ones.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from emberd.api.record import Record

MOST = 200
LOOKS = ("GET", "HEAD", "OPTIONS")
READY = "/ready"  # which balancers ask every second


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended, at `at_s` since 1970; `status` is a number, or `hung_up`."""

    at_s: float
    id: str
    method: str
    dialect: str
    status: str
    seconds: float
    record: Record

    @property
    def only_looked(self) -> bool:
        """Whether it changed nothing and was answered well; 503 is a good answer of `/ready`."""
        is_good = self.status < "4" or (self.record.route, self.status) == (READY, "503")
        return self.method in LOOKS and is_good

    def row(self) -> dict[str, Any]:
        """Return what is told of it; times in milliseconds."""
        record = self.record
        stages = record.timing.stages() if record.timing else ()
        return {
            "at_s": round(self.at_s, 3),
            "id": self.id,
            "method": self.method,
            "route": record.route,
            "status": int(self.status) if self.status.isdecimal() else self.status,
            "ms": in_ms(self.seconds),
            "dialect": self.dialect,
            "model": record.model,
            "texts": record.texts,
            "tokens": record.tokens,
            "truncated": record.truncated,
            "cached": record.cached,
            "stages": {f"{stage}_ms": in_ms(spent_s) for stage, spent_s in stages},
        }


class Activity:
    """A ring of requests; rows are made when somebody wants to see them."""

    def __init__(self) -> None:
        self._ring: deque[Ended] = deque(maxlen=MOST)
        self._fresh = 0  # how many have not been told

    def note(self, ended: Ended) -> bool:
        """Keep a request; False if it is left out."""
        if ended.only_looked:
            return False
        self._ring.append(ended)
        self._fresh = min(self._fresh + 1, MOST)
        return True

    def rows(self) -> list[dict[str, Any]]:
        """Return all of them, the newest first."""
        return [ended.row() for ended in reversed(self._ring)]

    def fresh(self) -> list[dict[str, Any]]:
        """Return those that came since it was last called, the newest first."""
        count, self._fresh = self._fresh, 0
        return [self._ring[-number].row() for number in range(1, count + 1)]


def in_ms(seconds: float) -> float:
    """Return milliseconds, as the log has them."""
    return round(seconds * 1000, 1)
