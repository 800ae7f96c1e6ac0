"""What others see of a model: its state, its row in `/models`, and the warnings about it.

`/models` renders `ModelStatus`, `/metrics` and the other APIs read it, and the command line parses
it from the JSON. A new field is added here and filled in `describe.py`, nowhere else.
"""

from dataclasses import dataclass
from typing import Any, Self

from emberd.pool.states import State
from emberd.registry.spec import InputType, Kind
from emberd.spaces.lock import LockEntry
from emberd.state import known_fields
from emberd.worker.wire import Progress

VECTORS_DAMAGED = "vectors_damaged"  # the code of a warning


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One entry of the registry, and its workers if it has any. Times are in seconds.

    `roles` has the names that state a role, such as `bge-small:query`, and which; they are listed
    for models that treat a query and a document differently, and for aliases that state one.
    `prompts` has what is put before a text of each role, for those roles that have a prompt.

    `replicas` is how many workers are ready, `memory_bytes` what all of them take; `pid` is the
    first of `pids`. `tested` is how far its entry was checked before the release.

    `pinned`: it stays loaded, as its entry says, or as somebody has said since the server started.

    `files_changed_s` is since 1970; it and `files_bytes` are 0 unless the model was loaded here.
    `phases_s` are the parts of the last start. `notes` say where the model's folder differs from
    its entry.
    """

    name: str
    kind: Kind
    aliases: list[str]
    roles: dict[str, InputType]
    prompts: dict[InputType, str]
    dimensions: int
    pooling: str
    precision: str
    max_tokens: int | None
    tested: str
    fingerprint: str | None
    state: State
    backend: str
    compute: str
    pinned: bool
    memory_bytes: int
    replicas: int
    in_flight: int
    queued: int
    idle_s: float | None
    unloads_in_s: float | None
    loads: int
    last_load_s: float | None
    phases_s: dict[str, float] | None
    progress: Progress | None
    last_error: str | None
    notes: list[str]
    pulled: bool
    files_bytes: int
    files_changed_s: int
    pid: int | None
    pids: list[int]

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Parse a row of `/models`; keys that a newer server added are ignored."""
        progress = Progress(**row["progress"]) if row["progress"] else None
        return cls(**{**known_fields(cls, row), "progress": progress})


def space_changed(name: str, entry: LockEntry) -> dict[str, str]:
    """Return the standing warning about a model whose vectors are not what they were."""
    return {
        "code": "space_changed",
        "message": f"{name} no longer gives the same vectors: {entry.reasons}. Its space is"
        f" now {entry.now.fingerprint}; it was {entry.fingerprint}.",
        "hint": entry.advice(name),
    }


def vectors_damaged(message: str) -> dict[str, str]:
    """Return the standing warning about a model that answered with damaged data."""
    hint = "Embed everything from that time again, and check the disk."
    return {"code": VECTORS_DAMAGED, "message": message, "hint": hint}
