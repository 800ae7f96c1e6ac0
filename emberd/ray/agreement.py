"""What all replicas of a model have in common: the first decides, and an odd one is refused.

The cluster remembers it (`memory`). An application with other arguments, as a Serve config that is
printed anew has, is another code version, whose first replica decides anew.
"""

import time
from dataclasses import asdict

import orjson
from ray import serve

from emberd.errors import WorkerStartError
from emberd.pool.crew import check_same
from emberd.ray import memory
from emberd.ray.crossing import Refused
from emberd.worker.wire import Ready

ANEW = (
    "Give every node the same files of the model. If these have changed on purpose, print the Serve"
    " config again (`emberd ray config`) and deploy that: its first replica decides anew."
)


def agree(mine: Ready) -> None:
    """Pass if this replica is what the others are, or the first. Blocks for a few milliseconds.

    Raises:
        WorkerStartError: its fingerprints, or what it computes with, are others.
    """
    context = serve.get_replica_context()
    key = [context.app_name, context.deployment, context.code_version or ""]
    told = orjson.dumps(asdict(_shared(mine)))
    try:
        check_same(mine, Ready(**orjson.loads(memory.put_first(key, told))))
    except WorkerStartError as error:
        raise WorkerStartError(error.message, hint=ANEW) from None
    memory.put([context.app_name, context.deployment, "now"], told)
    memory.put([context.app_name, context.deployment, "unloaded"], b"")


def note_refusal(refused: Refused | None) -> None:
    """Say why a replica of this deployment could not start, or that one has."""
    context = serve.get_replica_context()
    key = [context.app_name, context.deployment, "refused"]
    memory.put(key, orjson.dumps([asdict(refused), time.time()]) if refused else b"")


def note_unloaded() -> None:
    """Say that the workers of this deployment have been told to end; `agree` says the opposite."""
    context = serve.get_replica_context()
    memory.put([context.app_name, context.deployment, "unloaded"], b"yes")


def known(app: str, model: str) -> Ready | None:
    """Return what the replicas of a model are, those that started last; None if none ever did."""
    value = memory.get([app, model, "now"])
    return Ready(**orjson.loads(value)) if value else None


def is_unloaded(app: str, model: str) -> bool:
    """Whether the model's workers were told to end, and none has started since."""
    return bool(memory.get([app, model, "unloaded"]))


def refusal(app: str, model: str) -> tuple[Refused, float] | None:
    """Return why the replica that started last could not, and when; None if it could.

    The time is that of its node's clock: two refusals differ in it.
    """
    value = memory.get([app, model, "refused"])
    if not value:
        return None
    refused, at_s = orjson.loads(value)
    return Refused(**refused), at_s


def _shared(ready: Ready) -> Ready:
    """Return what concerns other replicas."""
    return Ready(
        backend=ready.backend,
        compute=ready.compute,
        max_tokens=ready.max_tokens,
        fingerprints=ready.fingerprints,
        equivalent=ready.equivalent,
        lock={},
        phases_s=ready.phases_s,
    )
