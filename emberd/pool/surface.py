"""What the HTTP API asks of a pool: of `manager.Pool`, or of replicas on a cluster."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from emberd.config.load import Config
from emberd.config.settings import LimitsSettings
from emberd.pool.job import Answer
from emberd.pool.request import EmbedRequest
from emberd.pool.states import State
from emberd.pool.status import ModelStatus
from emberd.registry.catalog import Named
from emberd.registry.spec import KINDS, AskedRole, InputType, Kind, ModelSpec


class PoolSurface(Protocol):
    """Models that answer requests. What each method does, and raises, is said in `manager.Pool`.

    `default` is the default model's entry. A pool is entered before it is asked.
    """

    default: ModelSpec

    @property
    def limits(self) -> LimitsSettings:
        """The limits in force now."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def apply(self, config: Config) -> None:
        """Switch to another configuration."""

    async def embed(self, request: EmbedRequest) -> Answer:
        """Embed texts with one model."""

    async def load(self, name: str | None) -> ModelStatus:
        """Return the model's status once it is ready."""

    async def unload(self, name: str | None = None) -> list[str]:
        """Unload one model or all; return the names that were loaded."""

    def pin(self, name: str | None, pinned: bool) -> ModelStatus:
        """Have a model stay loaded, or no longer."""

    def statuses(self) -> list[ModelStatus]:
        """Return the status of every entry."""

    def status(self, name: str | None = None, *, pulled: bool | None = None) -> ModelStatus:
        """Return one model's status."""

    def states(self) -> dict[str, State]:
        """Return the state of every entry, by name."""

    def warnings(self) -> list[dict[str, str]]:
        """Return what needs attention."""

    def spec(self, name: str | None = None) -> ModelSpec:
        """Return a model's entry."""

    def find(
        self,
        name: str | None = None,
        input_type: AskedRole | None = None,
        kinds: Sequence[Kind] = KINDS,
    ) -> Named:
        """Return which model a request means, and the role of its texts."""

    def names(self, spec: ModelSpec) -> Mapping[str, InputType | None]:
        """Return the names under which to list a model."""

    def queued_texts(self) -> dict[str, int]:
        """Return how many texts without a vector each busy model has."""

    def memory_bytes(self) -> dict[str, int]:
        """Return the memory of each loaded model's workers."""

    def check_ready(self, name: str | None, fingerprint: str | None) -> None:
        """Pass if requests may be sent, for this model and space if any is named."""

    def leave(self) -> None:
        """Begin to leave: nobody should send more, but what comes is still answered."""

    async def drain(self, within_s: float) -> None:
        """Take no more, and refuse what is not answered in time."""
