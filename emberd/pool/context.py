"""What all models of a pool share: folders, limits, the observer, and how a worker is spawned."""

from collections.abc import Callable
from dataclasses import dataclass, field

from emberd.config.paths import Homes
from emberd.pool.observer import Observer
from emberd.pool.process import Spawn
from emberd.pool.room import Room
from emberd.pool.watchdog import Patience
from emberd.spaces.lock import LockFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContext:
    """What a model needs of its pool.

    `changed` is called when there might now be room for another model, `freed` when there may be
    more of it, or as much is known to be left; `idle_unload_s` and `threads` return the limits in
    force. `pins`
    has whether a model stays loaded, by its name, where somebody has said so since the server
    started; otherwise its entry decides.
    """

    homes: Homes
    lock: LockFile
    room: Room
    observer: Observer
    spawn: Spawn
    patience: Patience
    idle_unload_s: Callable[[], float]
    threads: Callable[[], int]
    changed: Callable[[], None]
    freed: Callable[[], None]
    vectors_bytes: int = 0  # for the cache of vectors; 0: there is none
    pins: dict[str, bool] = field(default_factory=dict)
