"""What all models of a pool share: where things are, who is told, and how a worker is spawned."""

from collections.abc import Callable
from dataclasses import dataclass

from emberd.config.paths import Homes
from emberd.pool.observer import Observer
from emberd.pool.process import Spawn
from emberd.pool.room import Room
from emberd.pool.watchdog import Patience
from emberd.spaces.lock import LockFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContext:
    """What a model needs of its pool.

    `changed` is called when another model might now find room; `idle_unload_s` is the limit that
    is in force now.
    """

    homes: Homes
    lock: LockFile
    room: Room
    observer: Observer
    spawn: Spawn
    patience: Patience
    idle_unload_s: Callable[[], float]
    changed: Callable[[], None]
