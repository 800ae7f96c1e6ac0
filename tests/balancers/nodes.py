"""Servers with the same small model, each at a port that it keeps when it is started again."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import psutil

from emberd.backends.tiny_bert import tiny_bert
from tests.ports import free_port
from tests.serving import Server

CONFIG = """
default: tiny
models:
  tiny: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: mean}}
limits: {{max_texts: {max_texts}, max_queued_texts: {max_queued_texts}}}
"""


class Node:
    """One machine of several: a home, a port, and a server while it runs."""

    def __init__(
        self,
        home: Path,
        *,
        seed: int = 1,
        max_texts: int = 2048,
        max_queued_texts: int = 20_000,
        load: bool = True,
    ) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._limits = {"max_texts": max_texts, "max_queued_texts": max_queued_texts}
        self.server = self.start(seed=seed, load=load)

    def start(self, *, seed: int = 1, load: bool = True) -> Server:
        """Start it with a model of these weights, loaded by default; return the server."""
        folder = self.home / f"model-{seed}"
        if not folder.exists():
            tiny_bert(folder, seed=seed)
        config = CONFIG.format(folder=folder, **self._limits)
        arguments = ("--port", str(self.port))
        self.server = Server(self.home, config=config, arguments=arguments)
        if load:
            self.server.embed("a cat")
        return self.server

    def swap(self, *, seed: int) -> None:
        """Start it again with a model of other weights."""
        self.server.stop()
        self.start(seed=seed)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.server.http.close()
        self.server.process.kill()
        self.server.process.wait(30)

    @contextmanager
    def stuck(self) -> Iterator[None]:
        """Have its workers stand still: what it gets meanwhile waits."""
        workers = self.server.workers()
        for each in workers:
            each.suspend()
        try:
            yield
        finally:
            for each in workers:
                with suppress(psutil.NoSuchProcess):  # killed with the server
                    each.resume()

    @property
    def has_work(self) -> bool:
        """Whether its model has requests."""
        row = self.server.row("tiny")
        return bool(row["in_flight"] or row["queued"])

    def stop(self) -> None:
        """End it if it runs."""
        if self.server.process.poll() is None:
            self.server.stop()

    @property
    def space(self) -> str:
        """The fingerprint of its model."""
        said: str = self.server.embed("a cat")["fingerprint"]
        return said


class Void:
    """An address that takes no packet: its queue of connections is full, so the system drops them.

    As a machine that has lost its power or its cable; a context manager. Linux only.
    """

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._held = [socket.socket() for _ in range(4)]
        for each in self._held:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", self.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (*self._held, self._listener):
            each.close()
