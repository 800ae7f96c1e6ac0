"""Decides, given the time, when a worker counts as stuck and when a failed model may try again.

Nothing here sleeps, looks at a process or reads a clock: the model does that, and asks.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the pool waits for each thing, in seconds.

    A batch takes a tenth of a second, so a worker that neither sends a frame nor uses processor
    time for `hung_s` is not going to.
    """

    stall_s: float = 60.0  # a start with no progress and no processor time is given up
    hung_s: float = 20.0  # a worker with requests, but no frames and no processor time
    check_s: float = 5.0  # between two checks of a silent worker
    pulse_s: float = 1.0  # between two readings of its processor time
    unread_check_s: float = 0.05  # nothing signals that a pipe has emptied
    dead_grace_s: float = 1.0  # for a worker whose pipe closed: most likely it is gone already
    end_grace_s: float = 10.0  # for a worker that has nothing left to answer
    busy_s: float = 2.0  # a start waits this long for a model to become idle, then drains one
    max_backoff_s: float = 60.0
    max_failures: int = 5  # after so many deaths of its workers in a row, a model's requests fail


class Watchdog:
    """Tells a worker that makes progress from one that is stuck."""

    def __init__(self, patience: Patience, now_s: float) -> None:
        self._pulse_s = patience.pulse_s
        self._heard: object = None
        self._cpu_s = 0.0
        self._moved_s = self._looked_s = now_s

    def still_s(self, now_s: float, heard: object, cpu_seconds: Callable[[], float]) -> float:
        """Return how long `heard` has not changed and no processor time has been used.

        Cheap enough for every frame: the processor time is read once per `pulse_s` at most.
        """
        if heard != self._heard:
            self._heard, self._moved_s = heard, now_s
        elif now_s - self._looked_s > self._pulse_s:
            cpu_s = round(cpu_seconds(), 1)
            if cpu_s != self._cpu_s:
                self._cpu_s, self._moved_s = cpu_s, now_s
            self._looked_s = now_s
        return now_s - self._moved_s


class Backoff:
    """Failures in a row, and how long they keep a model from being started again."""

    def __init__(self, patience: Patience) -> None:
        self._max_s = patience.max_backoff_s
        self._max_failures = patience.max_failures
        self._retry_at_s = 0.0
        self.failures = 0

    def worked(self) -> None:
        """Note that a worker answered, which ends a row of failures."""
        self.failures = 0

    def died(self) -> bool:
        """Count a death of the worker; return whether that is one too many in a row."""
        self.failures += 1
        return self.failures >= self._max_failures

    def gave_up(self, now_s: float) -> None:
        """Count a failure that was reported to everybody who was waiting."""
        self.failures += 1
        self._retry_at_s = now_s + min(2.0**self.failures / 2, self._max_s)

    def left_s(self, now_s: float) -> float:
        """Return how long a failed model will still refuse requests; 0 or less if it does not."""
        return self._retry_at_s - now_s

    @property
    def restart_delay_s(self) -> float:
        """Return how long to wait before the next worker; 0 after the first death in a row."""
        return min(0.1 * 2**self.failures, self._max_s) if self.failures > 1 else 0.0
