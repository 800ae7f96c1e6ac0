"""How the replicas are, as of a moment ago: asked of Serve's controller beside the requests.

It asks no replica: a question would keep a model from being scaled to zero.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from emberd.aside import aside
from emberd.pool.serving import made_of
from emberd.pool.states import State
from emberd.ray import agreement
from emberd.ray.crossing import Refused
from emberd.worker.wire import Ready

EACH_S = 2.0

log = logging.getLogger("emberd.ray")


@dataclass(frozen=True, slots=True)
class Seen:
    """A model: its replicas that run, and what they are.

    `refused` is why the replica that started last could not, and when. `is_whole`: as many run as
    there should be.
    """

    running: int = 0
    state: State = "cold"
    ready: Ready | None = None
    refused: tuple[Refused, float] | None = None
    is_whole: bool = False

    @property
    def lacks(self) -> Refused | None:
        """Why there are fewer replicas than there should be, if one could not start."""
        return None if self.is_whole or self.refused is None else self.refused[0]

    def serves(self, fingerprint: str) -> bool:
        """Whether it gives vectors in that space, or in one that is made of it."""
        if not self.ready:
            return False
        spaces = {*self.ready.fingerprints.values(), *self.ready.equivalent}
        return fingerprint in spaces or fingerprint in made_of(spaces, {})


class Look:
    """Looks at the models of one application."""

    def __init__(self, app: str, models: Sequence[str]) -> None:
        self._app = app
        self._seen = dict.fromkeys(models, Seen())
        self._noted = 0  # changes that are known here before Serve is asked

    def seen(self, model: str) -> Seen:
        """Return how a model was."""
        return self._seen[model]

    async def go_on(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            noted = self._noted
            try:
                seen = await aside(self._look)
                self._seen = seen if noted == self._noted else self._seen
            except (RayError, RayServeException, RuntimeError) as error:
                log.warning("Serve's controller did not answer: %s", type(error).__name__)
            await asyncio.sleep(EACH_S)

    async def was_answered(self, model: str) -> None:
        """Note that a replica has answered, and see what it is if that is not known."""
        seen = self._seen[model]
        if seen.state == "ready" and seen.ready:
            return
        ready = seen.ready or await aside(lambda: agreement.known(self._app, model))
        self._seen[model] = replace(seen, running=max(1, seen.running), state="ready", ready=ready)
        self._noted += 1

    def were_unloaded(self, models: Iterable[str]) -> None:
        """Note that workers have ended."""
        for model in models:
            self._seen[model] = replace(self._seen[model], state="cold")
            self._noted += 1

    async def refusal(self, model: str) -> tuple[Refused, float] | None:
        """Return why the replica of a model that started last could not, and when."""
        return await aside(lambda: agreement.refusal(self._app, model))

    def warnings(self) -> list[dict[str, str]]:
        """Return a warning for each model of which a replica was refused, or could not start."""
        return [
            {
                "code": "replica_refused",
                "message": f"A replica of {model} could not start: {refused.message}",
                "hint": refused.hint or "`serve status` says more.",
            }
            for model, seen in self._seen.items()
            if (refused := seen.lacks)
        ]

    def _look(self) -> dict[str, Seen]:
        status = serve.status().applications.get(self._app)
        return {
            model: self._at(model, status.deployments[model])
            if status and model in status.deployments
            else before
            for model, before in self._seen.items()
        }

    def _at(self, model: str, status: "serve.schema.DeploymentStatusOverview") -> Seen:
        counts = {str(getattr(key, "value", key)): n for key, n in status.replica_states.items()}
        running = counts.get("RUNNING", 0)
        coming = counts.get("STARTING", 0) + counts.get("PENDING_ALLOCATION", 0)
        state: State = "ready" if running else "starting" if coming else "cold"
        if running and agreement.is_unloaded(self._app, model):
            state = "cold"
        if not running and status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            state = "failed"
        refused = agreement.refusal(self._app, model)
        is_whole = bool(running) and status.status == "HEALTHY"
        return Seen(running, state, agreement.known(self._app, model), refused, is_whole)
