"""Room in memory: which models have a place, and how the next one gets its own."""

import asyncio
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from emberd.aside import aside
from emberd.config.settings import LimitsSettings
from emberd.errors import NoRoomError
from emberd.files import size_of
from emberd.models.availability import find_here
from emberd.models.local import weights
from emberd.pool.eviction import Decision, Resident, choose_evictions
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.units import format_size

WORKER_BASE_BYTES = 120 * 2**20  # interpreter, libraries and tokenizer of a worker
UNKNOWN_WEIGHTS_BYTES = 200 * 2**20  # for a model whose files are not here yet


class Tenant(Protocol):
    """What `Room` needs from a model."""

    spec: ModelSpec

    @property
    def wanted(self) -> bool:
        """Whether somebody is still waiting for it to start."""

    def as_resident(self) -> Resident:
        """Return what the eviction policy needs to know."""

    def leave(self, reason: str) -> None:
        """Ask it to end its worker."""


class Room:
    """Places within `limits.max_loaded` and `limits.memory_budget`; first come, first served.

    `changed` is set by models whenever one of them might be able to leave, or has left.
    `busy_s`: how long a model waits for busy ones to become idle before one is drained.
    """

    def __init__(
        self,
        limits: LimitsSettings,
        *,
        hub: Path,
        lock: LockFile,
        changed: asyncio.Event,
        busy_s: float,
    ) -> None:
        self._limits = limits
        self._hub = hub
        self._lock = lock
        self._changed = changed
        self._busy_s = busy_s
        self._tenants: list[Tenant] = []
        self._turn = asyncio.Lock()

    def holds(self, model: Tenant) -> bool:
        """Whether this model has a place."""
        return model in self._tenants

    @property
    def free_bytes(self) -> int:
        """What the loaded models leave of the budget; negative if they take more."""
        taken = sum(tenant.as_resident().memory_bytes for tenant in self._tenants)
        return self._limits.memory_budget - taken

    def apply(self, limits: LimitsSettings) -> None:
        """Switch to other limits, and ask models that no longer fit to leave."""
        self._limits = limits
        self._ask_to_leave(self._decide(None, drain_busy=True))

    async def take(self, model: Tenant) -> bool:
        """Wait for a place, asking others to leave; False if nobody wants this model any longer.

        Raises:
            NoRoomError: it would not fit even on its own.
        """
        needs_bytes = await self.needs_bytes(model.spec)
        async with self._turn:
            began_s = time.monotonic()
            while model.wanted:
                self._changed.clear()
                patience_s = self._busy_s - (time.monotonic() - began_s)
                decision = self._decide(needs_bytes, drain_busy=patience_s <= 0)
                if decision.fits:
                    self._tenants.append(model)
                    return True
                self._ask_to_leave(decision)
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._changed.wait(), patience_s if patience_s > 0 else None
                    )
        return False

    def give_back(self, model: Tenant) -> None:
        """Free the place of a model whose memory is back, if it had one."""
        with suppress(ValueError):
            self._tenants.remove(model)

    async def needs_bytes(self, spec: ModelSpec) -> int:
        """Return the memory that a model is expected to take: as measured before, or estimated.

        Raises:
            NoRoomError: it would not fit even on its own.
        """
        budget_bytes = self._limits.memory_budget
        before = self._lock.read().get(spec.name)
        needs_bytes = before.peak_memory_bytes if before else 0
        if not 0 < needs_bytes <= budget_bytes:
            # A peak over the budget came from one odd request: such a model runs alone.
            estimate = await aside(partial(estimate_bytes, spec, self._hub, before))
            needs_bytes = max(estimate, min(needs_bytes, budget_bytes))
        if needs_bytes > budget_bytes:
            raise NoRoomError(
                f"{spec.name} needs about {format_size(needs_bytes)}, but"
                f" limits.memory_budget is {format_size(budget_bytes)}.",
                hint="Raise limits.memory_budget, or use a smaller model.",
            )
        return needs_bytes

    def _decide(self, incoming_bytes: int | None, *, drain_busy: bool) -> Decision:
        return choose_evictions(
            [tenant.as_resident() for tenant in self._tenants],
            incoming_bytes=incoming_bytes,
            budget_bytes=self._limits.memory_budget,
            max_loaded=self._limits.max_loaded,
            drain_busy=drain_busy,
        )

    def _ask_to_leave(self, decision: Decision) -> None:
        """A name may occur twice: a model that is leaving for good, and its successor."""
        for tenant in self._tenants:
            resident = tenant.as_resident()
            if resident.name in decision.leave and not resident.leaving:
                tenant.leave("lru")


def estimate_bytes(spec: ModelSpec, hub: Path, before: LockEntry | None) -> int:
    """Estimate the memory of a model that never ran here, from the size of its weights."""
    here = find_here(spec, hub, before)
    if not here:
        return WORKER_BASE_BYTES + UNKNOWN_WEIGHTS_BYTES
    return WORKER_BASE_BYTES + sum(map(size_of, weights(here.folder, spec.backend)))
