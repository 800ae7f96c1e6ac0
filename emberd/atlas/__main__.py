"""The process that holds one map: `python -m emberd.atlas CONFIG DEFAULT STORE MAP`.

The server (`emberd.api.map_process`) writes questions to its stdin, each a JSON object on a line
with `ask` and `id`, and reads from its stdout, for each, a line `{"id", "bytes"}` and so many
bytes, or a line `{"id", "error"}`. Lines `{"state"}` come whenever something has changed. It ends
when its stdin closes, which also happens when the server dies. It only reads the store.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import RLock, Thread
from typing import Any, BinaryIO

import orjson

from emberd.atlas.chart import Chart
from emberd.atlas.holding import Held, hold
from emberd.atlas.origins import candidates_for, find_origins
from emberd.config.load import Config, load_config
from emberd.errors import EmberdError, StoreError
from emberd.migrate.known import find
from emberd.migrate.store_ref import StoreRef

NICE = 5  # requests come first


class Outbox:
    """Writes to the server, one message at a time; the state is sent whenever it changes."""

    def __init__(self, out: BinaryIO, state: dict[str, Any]) -> None:
        self._out = out
        self._state = state
        self._lock = RLock()

    def change(self, **what: object) -> None:
        """Change the state, and tell it."""
        with self._lock:
            self._state |= what
            self.send({"state": self._state})

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send one message."""
        with self._lock:
            self._out.write(orjson.dumps(header) + b"\n" + body)
            self._out.flush()


class MapProcess:
    """Reads a store, then answers until stdin closes."""

    def __init__(self, load: Callable[[], Config], name: str, outbox: Outbox) -> None:
        self._load, self._name, self._outbox = load, name, outbox
        self._questions: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._config: Config
        self._ref: StoreRef
        self._chart: Chart
        self._is_checking = False

    def run(self, questions: BinaryIO) -> None:
        """Do everything, and end the process with the last question."""
        Thread(target=self._listen, args=[questions], daemon=True).start()
        with self._telling():
            self._read()
            while True:
                self._answer(self._questions.get())

    def _listen(self, questions: BinaryIO) -> None:
        for line in questions:
            self._questions.put(orjson.loads(line))
        os._exit(0)  # also while a store is read: nobody wants the answer

    @contextmanager
    def _telling(self, number: int | None = None) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - one question's failure is not another's
            said = _said(error)
            self._outbox.send({"error": said} if number is None else {"id": number, "error": said})

    def _read(self) -> None:
        self._config = self._load()
        self._ref = find(self._config, self._name)
        stamp = self._ref.store.stamp()
        held = hold(self._ref.store, lambda *done: self._tell("reading rows", *done))
        self._tell("computing principal components", 0, 0)
        self._chart = Chart(held)
        self._outbox.change(
            state="ready", progress=None, rows=held.shape.rows, points=len(held.keys),
            sampled=held.is_sample, unusable=held.unusable, dimensions=held.shape.dimensions,
            dtype=held.shape.dtype, stamp=stamp and stamp.model, shares=self._chart.shares[:2],
            candidates=[spec.name for spec in candidates_for(self._config, held)],
            checkable=len(held.whole), **self._chart.origins.to_dict(),
        )  # fmt: skip

    def _tell(self, what: str, done: int, total: int) -> None:
        self._outbox.change(progress={"what": what, "done": done, "total": total})

    def _answer(self, asked: dict[str, Any]) -> None:
        with self._telling(asked["id"]):
            about, body = self._do(asked)
            header = {"id": asked["id"], "bytes": len(body), "about": about}
            self._outbox.send(header, body)

    def _do(self, asked: dict[str, Any]) -> tuple[dict[str, int], bytes]:
        chart = self._chart
        match asked["ask"]:
            case "points":
                return {"rows": len(chart.held.keys)}, chart.points()
            case "components":
                raw, rows, count = chart.components(asked["rows"])
                return {"rows": rows, "components": count}, raw
            case "texts":
                return {}, orjson.dumps(chart.texts(asked["rows"]))
            case "nearest":
                return {}, orjson.dumps(chart.nearest(asked["vector"], asked["count"]))
            case _:
                self._begin_check(chart.held)
                return {}, b""

    def _begin_check(self, held: Held) -> None:
        """Begin to find out who made the rows, unless that is under way."""
        if self._is_checking:
            return
        self._is_checking = True
        self._outbox.change(check={"model": None, "done": 0, "total": 0}, check_error=None)
        Thread(target=self._check, args=[held], daemon=True).start()

    def _check(self, held: Held) -> None:
        def progress(model: str, done: int, total: int) -> None:
            self._outbox.change(check={"model": model, "done": done, "total": total})

        failed: dict[str, Any] | None = None
        try:
            self._chart.origins = find_origins(self._config, self._ref, held, progress)
        except Exception as error:  # noqa: BLE001 - the map itself is still good
            failed = _said(error)
        self._is_checking = False
        self._outbox.change(
            check=None, check_error=failed, **self._chart.origins.to_dict(),
        )  # fmt: skip


def _said(error: Exception) -> dict[str, Any]:
    """Return what to tell of an error; of one that is not ours no words, which may quote a text."""
    if isinstance(error, EmberdError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    hint = f"Please report it: {what}."
    return {"code": StoreError.code, "message": "The map failed.", "hint": hint}


def main() -> None:
    """Hold the map that the command line names."""
    file, default, name, made = sys.argv[1:]
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what C code prints goes to the log
    with suppress(OSError):
        os.nice(NICE)
    state: dict[str, Any] = {
        "map": made, "store": name, "state": "reading", "progress": None, "rows": 0, "points": 0,
        "sampled": False, "unusable": 0, "dimensions": 0, "dtype": "float", "stamp": None,
        "shares": [], "groups": [], "agreement": None, "candidates": [], "checkable": 0,
        "check": None, "check_error": None,
    }  # fmt: skip
    outbox = Outbox(out, state)

    def load() -> Config:
        return load_config(config=Path(file), flags={("default",): default})

    MapProcess(load, name, outbox).run(sys.stdin.buffer)


if __name__ == "__main__":
    main()
