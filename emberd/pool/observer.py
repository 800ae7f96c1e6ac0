"""What the pool reports as it happens, for the metrics and for those who watch."""

from collections.abc import Mapping
from typing import Protocol

from emberd.worker.wire import Batch


class Observer(Protocol):
    """Called in the server's event loop: must be quick and must not raise."""

    def changed(self, model: str) -> None:
        """A model's state is another one, or its start has got further."""

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """A model became ready; the phases are those that its worker measured, in seconds."""

    def unloaded(self, model: str, reason: str) -> None:
        """A model that was ready is gone: idle, lru, asked, crash, reload or shutdown."""

    def ran(self, model: str, batch: Batch) -> None:
        """A worker ran a batch."""


class NullObserver:
    """An observer that ignores everything."""

    def changed(self, model: str) -> None:
        """Do nothing."""

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """Do nothing."""

    def unloaded(self, model: str, reason: str) -> None:
        """Do nothing."""

    def ran(self, model: str, batch: Batch) -> None:
        """Do nothing."""


class Observers:
    """Several observers as one."""

    def __init__(self, *every: Observer) -> None:
        self._every = [*every]

    def add(self, observer: Observer) -> None:
        """Report to this one, too."""
        self._every.append(observer)

    def changed(self, model: str) -> None:
        """See `Observer`."""
        for each in self._every:
            each.changed(model)

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """See `Observer`."""
        for each in self._every:
            each.loaded(model, seconds, phases_s)

    def unloaded(self, model: str, reason: str) -> None:
        """See `Observer`."""
        for each in self._every:
            each.unloaded(model, reason)

    def ran(self, model: str, batch: Batch) -> None:
        """See `Observer`."""
        for each in self._every:
            each.ran(model, batch)
