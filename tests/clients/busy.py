"""A server whose queue is full for as long as somebody wants, so that clients meet a real 429."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.serving import Server, wait_for


@contextmanager
def full_queue(home: Path) -> Iterator[tuple[Server, Callable[[], None]]]:
    """Give a server that answers 429, and what to call to let it get on with its work."""
    with Server(home, config="limits: {max_queued_texts: 1}") as server:
        server.embed("loaded")
        (worker,) = server.workers()
        worker.suspend()
        try:
            with ThreadPoolExecutor(1) as thread:
                first = thread.submit(server.embed, "one who was here before")
                wait_for(lambda: server.row()["in_flight"])
                yield server, worker.resume
                worker.resume()
                assert first.result()["dimensions"] == 384
        finally:
            worker.resume()
