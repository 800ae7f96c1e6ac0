"""Servers with the same small model, each at a port that it keeps when it is started again."""

from pathlib import Path

from emberd.backends.tiny_bert import tiny_bert
from tests.balancers.balancing import free_ports
from tests.serving import Server

CONFIG = """
default: tiny
models:
  tiny: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: mean}}
limits: {{max_texts: {max_texts}}}
"""


class Node:
    """One machine of several: a home, a port, and a server while it runs."""

    def __init__(self, home: Path, *, seed: int = 1, max_texts: int = 2048) -> None:
        self.home = home
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._max_texts = max_texts
        self.server = self.start(seed=seed)

    def start(self, *, seed: int = 1) -> Server:
        """Start it with a model of these weights, loaded; return the server."""
        folder = self.home / f"model-{seed}"
        if not folder.exists():
            tiny_bert(folder, seed=seed)
        config = CONFIG.format(folder=folder, max_texts=self._max_texts)
        arguments = ("--port", str(self.port))
        self.server = Server(self.home, config=config, arguments=arguments)
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

    def stop(self) -> None:
        """End it if it runs."""
        if self.server.process.poll() is None:
            self.server.stop()

    @property
    def space(self) -> str:
        """The fingerprint of its model."""
        said: str = self.server.embed("a cat")["fingerprint"]
        return said
