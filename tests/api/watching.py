"""A client of `/events`: reads the stream of a real server in a thread of its own."""

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.serving import Server

WITHIN_S = 60.0


class Stream:
    """The events that one watcher has been sent."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[str, Any] | None] = queue.Queue()
        self._skipped: list[tuple[str, Any]] = []

    def read(self, response: httpx2.Response) -> None:
        """Put every event of a stream into the queue, and None at its end."""
        name = ""
        try:
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self._events.put((name, json.loads(line.removeprefix("data: "))))
        except httpx2.HTTPError:
            pass  # cut off
        finally:
            self._events.put(None)

    def until(
        self,
        name: str,
        fits: Callable[[Any], bool] = lambda _: True,
        *,
        samples: float = math.inf,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return the data of the next event of that name that fits; skip those before it.

        Fewer than so many of these may be `samples`, of which the server sends one a second.
        """
        until_s = time.monotonic() + WITHIN_S
        while True:
            assert samples > 0, f"{name} did not come in time"
            event = self._events.get(timeout=max(0.001, until_s - time.monotonic()))
            assert event, f"the stream ended before {name}"
            if event[0] == name and fits(event[1]):
                return event[1]
            self._skipped.append(event)
            samples -= event[0] == "sample"

    def ever(self, name: str, fits: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - JSON
        """Return what `until` does, also if it was skipped: a second may end at any moment."""
        was = (data for each, data in self._skipped if each == name and fits(data))
        return next(was, None) or self.until(name, fits)

    def row(self, model: str, fits: Callable[[Any], bool], *, samples: float = math.inf) -> Any:  # noqa: ANN401
        """Return the next row of a model that fits; `samples` as in `until`."""

        def has(rows: list[dict[str, Any]]) -> bool:
            return any(row["name"] == model and fits(row) for row in rows)

        rows = self.until("models", has, samples=samples)
        return next(row for row in rows if row["name"] == model)

    def until_its_end(self) -> None:
        """Return when the server has ended the stream."""
        while self._events.get(timeout=WITHIN_S):
            pass


@contextmanager
def watching(server: Server) -> Iterator[Stream]:
    """Watch a server; yields once the connection is there."""
    stream = Stream()
    with (
        httpx2.Client(base_url=server.url, timeout=None, trust_env=False) as client,
        client.stream("GET", "/events") as response,
    ):
        assert response.status_code == 200
        reading = threading.Thread(target=stream.read, args=(response,), daemon=True)
        reading.start()
        yield stream
