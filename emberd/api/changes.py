"""What changes in this server: noticed as it happens, gathered for a moment, told to who watches.

While nobody watches, nothing is looked at; a timer runs once a second as long as something is
asked, for the history. While nothing is asked either, there is no timer at all.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from emberd.api.activity import Activity, Ended
from emberd.api.events import Watchers
from emberd.api.history import History
from emberd.pool.memory import memory_bytes
from emberd.pool.status import ModelStatus
from emberd.pool.surface import PoolSurface
from emberd.worker.wire import Batch

SOON_S = 0.2  # in which changes are gathered
EVERYTHING = 10  # seconds between looks at what nothing announces, such as files that a command got
LATER_S = 1.0  # by how much a model's time to be unloaded moves before that is told

Looks = dict[str, Callable[[], Any]]


class Changes:
    """Notices changes and tells them. An `Observer` of the pool.

    `everything` has what `hello` says, by name; `pid` is the server's.
    """

    def __init__(
        self, pool: PoolSurface, history: History, activity: Activity, everything: Looks, pid: int
    ) -> None:
        self.watchers = Watchers(self._hello)
        self._pool = pool
        self._history = history
        self._activity = activity
        self._everything = everything
        self._pid = pid
        self._told: dict[str, Any] = {}  # what was last said of `server` and `warnings`,
        self._rows: dict[str, tuple[ModelStatus, float]] = {}  # and of each model
        self._marked: set[str] = set()  # models that have changed since
        self._happened = False  # something, since the last second ended
        self._soon: asyncio.TimerHandle | None = None
        self._second: asyncio.TimerHandle | None = None
        self._seconds = 0

    # -- what happens -----------------------------------------------------------------------

    def answered(self, ended: Ended) -> None:
        """Note a request that has ended."""
        self._history.answered(ended.record, ended.seconds)
        if self._activity.note(ended):
            self._tell_soon()
        if ended.record.model:
            self._touch()

    def changed(self, model: str) -> None:
        """See `Observer`."""
        self._marked.add(model)
        self._tell_soon()

    def loaded(self, model: str, seconds: float, phases_s: Mapping[str, float]) -> None:
        """See `Observer`."""
        del seconds, phases_s
        self.changed(model)
        self._touch()

    def unloaded(self, model: str, reason: str) -> None:
        """See `Observer`."""
        self._history.left(model, reason)
        self.changed(model)
        self._touch()

    def ran(self, model: str, batch: Batch) -> None:
        """See `Observer`."""
        del model
        self._history.ran(batch)
        self._touch()

    # -- what is told -----------------------------------------------------------------------

    def look(self) -> None:
        """Look at everything, and tell what of it has changed."""
        if not self.watchers:
            return
        rows = self._pool.statuses()
        if gone := [name for name in self._rows if name not in {row.name for row in rows}]:
            self._rows = {name: seen for name, seen in self._rows.items() if name not in gone}
            self.watchers.tell("gone", gone)
        self._tell_rows(rows)
        self._tell_changed("server")
        self._tell_changed("warnings")

    def _hello(self) -> dict[str, Any]:
        """Return everything; those who watch already are told what has changed until now."""
        self.look()
        self._marked.clear()
        if requests := self._activity.fresh():
            self.watchers.tell("requests", requests)
        said = {name: look() for name, look in self._everything.items()}
        self._rows = {row.name: (_lasting(row), _until_s(row)) for row in said["models"]}
        self._told = {name: _steady(said[name]) for name in ("server", "warnings")}
        self._touch()
        return said

    def _tell_soon(self) -> None:
        if self._soon is None and self.watchers:
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self._tell)

    def _tell(self) -> None:
        self._soon = None
        if requests := self._activity.fresh():
            self.watchers.tell("requests", requests)
        if self._marked:
            states = self._pool.states()
            marked = [self._row(name, states[name]) for name in states if name in self._marked]
            self._marked.clear()
            self._tell_rows(marked)
            self._tell_changed("warnings")

    def _row(self, name: str, state: str) -> ModelStatus:
        """Return a model's row; a disk that may be slow is asked only if its state has changed."""
        seen, _ = self._rows.get(name, (None, 0.0))
        return self._pool.status(name, pulled=seen.pulled if seen and seen.state == state else None)

    def _tell_rows(self, rows: list[ModelStatus]) -> None:
        changed = []
        for row in rows:
            lasting, until_s = _lasting(row), _until_s(row)
            seen, seen_until_s = self._rows.get(row.name, (None, 0.0))
            if seen != lasting or abs(until_s - seen_until_s) > LATER_S:
                self._rows[row.name] = (lasting, until_s)
                changed.append(row)
        if changed:
            self.watchers.tell("models", changed)

    def _tell_changed(self, name: str) -> None:
        said = self._everything[name]()
        if self._told.get(name) != _steady(said):
            self._told[name] = _steady(said)
            self.watchers.tell(name, said)

    # -- the seconds ------------------------------------------------------------------------

    def _touch(self) -> None:
        """Have this second in the history."""
        self._happened = True
        if self._second is None:
            left_s = 1.005 - time.time() % 1  # a little later, so that it is certainly over
            self._second = asyncio.get_running_loop().call_later(left_s, self._end_second)

    def _end_second(self) -> None:
        self._second = None
        if not (self.watchers or self._happened):
            return
        self._touch()
        self._happened = False
        sample = self._history.end_second(
            int(time.time()) - 1,
            queued=sum(self._pool.queued_texts().values()),
            memory=self._pool.memory_bytes(),
            server_bytes=memory_bytes(self._pid),
        )
        if not self.watchers:
            return
        self.watchers.tell("sample", sample)
        self._seconds += 1
        if self._seconds % EVERYTHING == 0:
            self.look()
        else:
            states = self._pool.states()
            self._tell_rows([self._row(name, states[name]) for name in states
                             if states[name] != "cold"])  # fmt: skip


def _lasting(row: ModelStatus) -> ModelStatus:
    """Return what of a row does not change by the mere passing of time."""
    return replace(row, idle_s=None, unloads_in_s=None)


def _until_s(row: ModelStatus) -> float:
    """Return when a model will be unloaded, in monotonic seconds; 0 if it will not."""
    return 0.0 if row.unloads_in_s is None else time.monotonic() + row.unloads_in_s


def _steady(said: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what of the server or its warnings is worth telling when it changes."""
    return {**said, "memory_bytes": 0} if isinstance(said, dict) else said
