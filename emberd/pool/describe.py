"""From a model to its row in `/models`."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from emberd.models.availability import find_here
from emberd.pool.model import Model
from emberd.pool.status import ModelStatus
from emberd.registry.spec import InputType, ModelSpec
from emberd.worker.wire import Ready


def status_of(
    model: Model, names: Mapping[str, InputType | None], *, pulled: bool | None = None
) -> ModelStatus:
    """Return what `/models` says about a model; its workers' memory is read from the system.

    `names` are those under which it is listed, and the role that each states. `pulled`: whether its
    files are here, if that is known; otherwise they are looked for.
    """
    spec, sessions, last, backlog = model.spec, model.sessions, model.last_start, model.backlog
    ready = next((session.ready for session in sessions if session.ready), None)
    starting = [session.progress for session in sessions if session.progress]
    entry = model.record.read()
    idle_s = None
    if model.state == "ready" and not backlog.busy:
        idle_s = round(time.monotonic() - backlog.last_used_s, 1)
    if pulled is None:
        pulled = find_here(spec, model.context.homes.hub, entry) is not None
    files = entry.now.files.values() if entry and pulled else ()
    row = described(spec, names, ready)
    return replace(
        row,
        fingerprint=row.fingerprint or (entry.now.fingerprint if entry else None),
        state=model.state,
        pinned=model.pinned,
        memory_bytes=model.memory_bytes,
        replicas=sum(lane.is_open for lane in backlog.lanes),
        in_flight=backlog.in_flight,
        queued=backlog.waiting,
        idle_s=idle_s,
        unloads_in_s=_left_s(idle_s, model.idle_unload_s),
        loads=model.loads,
        last_load_s=last.seconds,
        phases_s=last.phases_s,
        progress=starting[0] if starting and model.state == "starting" else None,
        last_error=model.last_error.message if model.last_error else None,
        notes=model.notes,
        pulled=pulled,
        files_bytes=sum(file.size for file in files),
        files_changed_s=max((file.mtime_ns // 10**9 for file in files), default=0),
        pid=sessions[0].worker.pid if sessions else None,
        pids=[session.worker.pid for session in sessions],
    )


def described(
    spec: ModelSpec, names: Mapping[str, InputType | None], ready: Ready | None
) -> ModelStatus:
    """Return the row of a model by its entry and, if a worker of it is ready, by what that said.

    What else it does and uses is left at nothing.
    """
    return ModelStatus(
        name=spec.name,
        kind=spec.kind,
        aliases=[*(name for name, role in names.items() if not role), *spec.hub_ids][1:],
        roles={name: role for name, role in names.items() if role},
        prompts={role: prompt for role, prompt in spec.prompts.items() if prompt},
        dimensions=spec.dimensions,
        pooling=spec.pooling,
        precision=spec.precision,
        max_tokens=ready.max_tokens if ready else spec.max_tokens,
        tested=spec.tested,
        fingerprint=ready.fingerprints[str(spec.dimensions)] if ready else None,
        state="cold",
        backend=ready.backend if ready else spec.backend,
        compute=ready.compute if ready else spec.compute,
        pinned=spec.pinned,
        memory_bytes=0,
        replicas=0,
        in_flight=0,
        queued=0,
        idle_s=None,
        unloads_in_s=None,
        loads=0,
        last_load_s=None,
        phases_s=dict(ready.phases_s) if ready else None,
        progress=None,
        last_error=None,
        notes=[],
        pulled=ready is not None,
        files_bytes=0,
        files_changed_s=0,
        pid=None,
        pids=[],
    )


def _left_s(idle_s: float | None, idle_unload_s: float) -> float | None:
    if idle_s is None or math.isinf(idle_unload_s):
        return None
    return max(0.0, round(idle_unload_s - idle_s, 1))
