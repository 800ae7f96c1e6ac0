"""A pool of deployments: each model's replicas, wherever they are, asked as one.

A replica that dies, or whose node does, costs a request another try, never its answer.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from emberd.config.load import Config
from emberd.config.settings import LimitsSettings
from emberd.errors import (
    BadOptionError,
    DeadlineError,
    EmberdError,
    NotServedError,
    QueueFullError,
    ShuttingDownError,
    WorkerStartError,
)
from emberd.pool.checking import check_late, checked_count, checked_size
from emberd.pool.describe import described
from emberd.pool.job import Answer
from emberd.pool.request import EmbedRequest
from emberd.pool.states import State
from emberd.pool.status import ModelStatus
from emberd.ray.crossing import Refused
from emberd.ray.look import EACH_S, Look
from emberd.registry.catalog import Named
from emberd.registry.spec import KINDS, AskedRole, InputType, Kind, ModelSpec

LOST_TRIES = 6  # of a request whose replicas die
REFUSED_TRIES = 3  # of one that replicas refuse because of how they are
PAUSE_S = 0.2  # before the second try; twice as long before each further one

log = logging.getLogger("emberd.ray")


class ElsewhereError(Exception):
    """This replica could not answer; `told` says why, once so many `tries` have failed."""

    def __init__(self, told: EmberdError, tries: int) -> None:
        super().__init__(told.message)
        self.told = told
        self.tries = tries


class HandlePool:
    """A `PoolSurface` over Serve's handles, by the names of models."""

    def __init__(self, config: Config, handles: Mapping[str, DeploymentHandle], look: Look) -> None:
        self._handles = handles
        self._look = look
        self._in_flight: Counter[str] = Counter()
        self._leaving = False
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Take a configuration; another set of models takes `serve deploy`."""
        self._catalog, self._limits = config.catalog, config.settings.limits
        self.default = self._catalog.get(config.settings.default)
        self._defaults: Mapping[Kind, str] = {
            "embed": self.default.name,
            "rerank": config.settings.default_reranker,
            "sparse": config.settings.default_sparse,
        }

    @property
    def limits(self) -> LimitsSettings:
        """The limits in force."""
        return self._limits

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look.go_on(), name="look at the replicas")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()

    # -- requests ---------------------------------------------------------------------------

    async def embed(self, request: EmbedRequest) -> Answer:
        """Return the answer of a replica. Raises EmberdError, as `Pool.embed`."""
        named = self.find(request.model, request.input_type, request.kinds)
        spec = named.spec
        count = self._admit(spec, request)
        # A replica knows its model and that one's own names, but not those under `aliases`.
        told = replace(
            request,
            texts=list(request.texts),
            model=spec.name,
            input_type=named.role or request.input_type,
        )
        self._in_flight[spec.name] += count
        try:
            said = await self._ask(spec, "embed", told)
        finally:
            self._in_flight[spec.name] -= count
        await self._look.was_answered(spec.name)
        answer: Answer = said.received()
        return answer

    async def load(self, name: str | None) -> ModelStatus:
        """Return the model's status once a replica of it is ready."""
        spec = self.spec(name)
        await self._ask(spec, "load")
        await self._look.was_answered(spec.name)
        return self.status(spec.name)

    async def unload(self, name: str | None = None) -> list[str]:
        """End the workers of all replicas of one model, or of all; they start when asked next.

        How many replicas there are is Serve's affair.
        """
        specs = [self.spec(name)] if name is not None else [*self._catalog]
        loaded = [spec.name for spec in specs if self._look.seen(spec.name).running]
        had = await asyncio.gather(*map(self._unload, loaded))
        self._look.were_unloaded(loaded)
        return [each for each, was in zip(loaded, had, strict=True) if was]

    async def _unload(self, name: str) -> bool:
        with suppress(RayError, RayServeException):  # a replica that is gone has no worker
            return any(await self._handles[name].broadcast("unload").results_async())
        return True

    def pin(self, name: str | None, pinned: bool) -> ModelStatus:
        """Raise: how many replicas stay is said when the application is deployed."""
        raise BadOptionError(
            f"{self.spec(name).name} cannot be pinned: Serve decides how many replicas there are.",
            hint="Set `pinned` in its entry, or min_replicas in the Serve config, and deploy it.",
        )

    def _admit(self, spec: ModelSpec, request: EmbedRequest) -> int:
        """Return how many texts it has. Raises EmberdError if no replica could serve it."""
        count = checked_count(request, self._limits.max_texts)
        checked_size(spec, request)
        if request.spans is not None:
            check_late(spec, self._catalog)
        queued = self._in_flight.total()
        if queued and queued + count > self._limits.max_queued_texts:
            raise QueueFullError(
                f"{queued} texts are already waiting.",
                hint="Try again in a moment, or raise limits.max_queued_texts.",
            )
        return count

    async def _ask(self, spec: ModelSpec, method: str, *arguments: object) -> Any:  # noqa: ANN401
        """Return what a replica says, of those that can answer. Raises EmberdError."""
        attempt = 0
        try:
            async with asyncio.timeout(self._limits.request_timeout):
                while True:
                    try:
                        return await self._once(spec, method, *arguments)
                    except ElsewhereError as problem:
                        attempt += 1
                        if attempt >= problem.tries:
                            raise problem.told from None
                    await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
        except TimeoutError:
            raise self._too_late(spec) from None

    async def _once(self, spec: ModelSpec, method: str, *arguments: object) -> Any:  # noqa: ANN401
        """Return what one replica says. Raises EmberdError, or ElsewhereError."""
        try:
            response = getattr(self._handles[spec.name], method).remote(*arguments)
            said = await self._unless_refused(spec, response)
        except BackPressureError:
            raise QueueFullError(
                f"Too many requests are already waiting for {spec.name}.",
                hint="Try again in a moment.",
            ) from None
        except DeploymentUnavailableError:
            raise await self._why_not(spec) from None
        except (RayError, RayServeException) as error:
            log.warning("%s: a replica did not answer: %s", spec.name, type(error).__name__)
            hint = "`serve status` says how they are."
            lost = WorkerStartError(f"No replica of {spec.name} answered.", hint=hint)
            raise ElsewhereError(lost, LOST_TRIES) from None
        if isinstance(said, Refused):
            told = said.received()
            raise ElsewhereError(told, REFUSED_TRIES) if said.elsewhere else told
        return said

    async def _unless_refused(self, spec: ModelSpec, response: DeploymentResponse[Any]) -> Any:  # noqa: ANN401
        """Return what it gives, unless no replica runs and the one that is started now cannot.

        Serve would go on starting it, and the request would wait until its deadline.
        """
        before = self._look.seen(spec.name).refused
        answer = asyncio.ensure_future(response)
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=EACH_S)
                seen = self._look.seen(spec.name)
                if not (answer.done() or seen.running) and seen.refused not in (None, before):
                    raise await self._why_not(spec)
            return answer.result()
        finally:
            if not answer.done():
                answer.cancel()
                response.cancel()

    async def _why_not(self, spec: ModelSpec) -> EmberdError:
        """Return why no replica of a model could be started."""
        refused = await self._look.refusal(spec.name)
        if refused:
            return refused[0].received()
        return WorkerStartError(
            f"No replica of {spec.name} can be started.", hint="`serve status` says why."
        )

    def _too_late(self, spec: ModelSpec) -> DeadlineError:
        seen = self._look.seen(spec.name)
        return DeadlineError(
            f"{spec.name} did not answer within {self._limits.request_timeout:.0f} s; it has"
            f" {seen.running} replicas.",
            hint="Try again, or raise limits.request_timeout.",
        )

    # -- what others see --------------------------------------------------------------------

    def statuses(self) -> list[ModelStatus]:
        """Return the status of every entry."""
        return [self.status(spec.name) for spec in self._catalog]

    def status(self, name: str | None = None, *, pulled: bool | None = None) -> ModelStatus:
        """Return one model's status, as it was a moment ago; memory is in Ray's own metrics."""
        spec = self.spec(name)
        seen = self._look.seen(spec.name)
        return replace(
            described(spec, self.names(spec), seen.ready),
            state=seen.state,
            replicas=seen.running,
            in_flight=self._in_flight[spec.name],
            last_error=seen.lacks.message if seen.lacks else None,
        )

    def states(self) -> dict[str, State]:
        """Return the state of every entry, by name."""
        return {spec.name: self._look.seen(spec.name).state for spec in self._catalog}

    def warnings(self) -> list[dict[str, str]]:
        """Return models of which a replica could not start, or was refused."""
        return self._look.warnings()

    def spec(self, name: str | None = None) -> ModelSpec:
        """Return a model's entry. Raises UnknownModelError."""
        return self.find(name).spec

    def find(
        self,
        name: str | None = None,
        input_type: AskedRole | None = None,
        kinds: Sequence[Kind] = KINDS,
    ) -> Named:
        """Return which model a request means; see `Pool.find`."""
        return self._catalog.find(name or self._defaults[kinds[0]], input_type, kinds=kinds)

    def names(self, spec: ModelSpec) -> Mapping[str, InputType | None]:
        """Return the names under which to list a model."""
        return self._catalog.names(spec)

    def queued_texts(self) -> dict[str, int]:
        """Return how many texts each model was sent from here and has not answered."""
        return {name: count for name, count in self._in_flight.items() if count}

    def memory_bytes(self) -> dict[str, int]:
        """Return nothing: the replicas' memory is that of other machines."""
        return {}

    def check_ready(self, name: str | None, fingerprint: str | None) -> None:
        """Pass if requests may be sent; see `Pool.check_ready`."""
        if self._leaving:
            raise ShuttingDownError("The server is shutting down.", hint="Try again in a moment.")
        if name is None and fingerprint is None:
            return
        spec = self.spec(name)
        seen = self._look.seen(spec.name)
        if seen.state == "failed":
            raise NotServedError(
                f"{spec.name} cannot be started here now.", hint="`serve status` says why."
            )
        if fingerprint is not None and not seen.serves(fingerprint):
            raise NotServedError(
                f"{spec.name} is not served in that space, or was not loaded yet.",
                hint=f"Load it once: `POST /load` with model {spec.name}.",
            )

    def leave(self) -> None:
        """Begin to leave."""
        self._leaving = True

    async def drain(self, within_s: float) -> None:
        """Begin to leave; Serve itself waits for what is in flight."""
        del within_s
        self._leaving = True
