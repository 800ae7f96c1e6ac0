"""What the pool reports as it happens, for the metrics."""

from collections.abc import Mapping
from typing import Protocol

from emberd.worker.wire import Batch


class Observer(Protocol):
    """Called in the server's event loop: must be quick and must not raise."""

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """A model became ready; the phases are those that its worker measured, in seconds."""

    def unloaded(self, model: str, reason: str) -> None:
        """A model that was ready is gone: idle, lru, asked, crash, reload or shutdown."""

    def ran(self, model: str, batch: Batch) -> None:
        """A worker ran a batch."""


class NullObserver:
    """An observer that ignores everything."""

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """Do nothing."""

    def unloaded(self, model: str, reason: str) -> None:
        """Do nothing."""

    def ran(self, model: str, batch: Batch) -> None:
        """Do nothing."""
