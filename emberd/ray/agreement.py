"""What all replicas of a model have in common: the first decides, and an odd one is refused.

It is kept where Ray keeps Serve's own state, and lives as long: until the cluster's head ends. A
changed application (`serve deploy`) is another code version, whose first replica decides anew.
"""

import time
from dataclasses import asdict

import orjson
from ray import serve
from ray.experimental import internal_kv

from emberd.pool.crew import check_same
from emberd.ray.crossing import Refused
from emberd.worker.wire import Ready

SPACE = "emberd"  # of keys


def agree(mine: Ready) -> None:
    """Pass if this replica is what the others are, or the first. Blocks for a few milliseconds.

    Raises:
        WorkerStartError: its fingerprints, or what it computes with, are others.
    """
    context = serve.get_replica_context()
    key = _key(context.app_name, context.deployment, context.code_version or "")
    told = orjson.dumps(asdict(_shared(mine)))
    if internal_kv._internal_kv_put(key, told, overwrite=False, namespace=SPACE):  # noqa: SLF001
        check_same(mine, _read(key) or mine)
    _put(_key(context.app_name, context.deployment, "now"), told)
    _put(_key(context.app_name, context.deployment, "unloaded"), b"")


def note_refusal(refused: Refused | None) -> None:
    """Say why a replica of this deployment could not start, or that one has."""
    context = serve.get_replica_context()
    key = _key(context.app_name, context.deployment, "refused")
    _put(key, orjson.dumps([asdict(refused), time.time()]) if refused else b"")


def note_unloaded() -> None:
    """Say that the workers of this deployment have been told to end; `agree` says the opposite."""
    context = serve.get_replica_context()
    _put(_key(context.app_name, context.deployment, "unloaded"), b"yes")


def known(app: str, model: str) -> Ready | None:
    """Return what the replicas of a model are, those that started last; None if none ever did."""
    return _read(_key(app, model, "now"))


def is_unloaded(app: str, model: str) -> bool:
    """Whether the model's workers were told to end, and none has started since."""
    return bool(_get(_key(app, model, "unloaded")))


def refusal(app: str, model: str) -> tuple[Refused, float] | None:
    """Return why the replica that started last could not, and when; None if it could.

    The time is that of its node's clock: two refusals differ in it.
    """
    value = _get(_key(app, model, "refused"))
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


def _key(app: str, model: str, what: str) -> bytes:
    return orjson.dumps([app, model, what])


def _put(key: bytes, value: bytes) -> None:
    internal_kv._internal_kv_put(key, value, overwrite=True, namespace=SPACE)  # noqa: SLF001


def _get(key: bytes) -> bytes | None:
    value: bytes | None = internal_kv._internal_kv_get(key, namespace=SPACE)  # noqa: SLF001
    return value


def _read(key: bytes) -> Ready | None:
    value = _get(key)
    return Ready(**orjson.loads(value)) if value else None
