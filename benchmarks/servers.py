"""Runs any server as a real process on a free loopback port, and ends it.

Each runs as its own documentation says, and nothing of them is imported here.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from emberd.bench.client import Connection, RefusedError, Server
from emberd.errors import NoServerError

START_S = 180.0
END_S = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A running server. `start_s`: from the start of its process to its first answer."""

    pid: int
    server: Server
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How to start a server. `command` is called with the port; `folder` is where it runs."""

    name: str
    folder: Path
    command: Callable[[int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    dialect: str = "native"
    model: str | None = None
    health: str = "/health"

    @contextmanager
    def run(self) -> Iterator[Running]:
        """Start it and wait until it answers; afterwards, end it and all its children."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        server = Server("127.0.0.1", port, self.dialect, self.model)
        began_s = time.perf_counter()
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self.command(port),
                cwd=self.folder,
                env={**plain_environment(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                self._wait(process, server, began_s)
                yield Running(process.pid, server, time.perf_counter() - began_s)
            except Exception:
                self._show_log()
                raise
            finally:
                end(process)

    def _wait(self, process: "subprocess.Popen[bytes]", server: Server, began_s: float) -> None:
        while time.perf_counter() - began_s < START_S:
            with suppress(NoServerError), Connection(server) as connection:
                with suppress(RefusedError):  # an answer is an answer
                    connection.ask(server.get(self.health))
                return
            if process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start")

    def _show_log(self) -> None:
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        print(f"the log of {self.name} ends with:", *lines[-20:], sep="\n", file=sys.stderr)


def plain_environment() -> dict[str, str]:
    """This environment, without what would change a server; Python keeps what it compiles."""
    dropped = ("EMBERD_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    # No server looks for the Hub: the model is local.
    return kept | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and all its children."""
    children: list[psutil.Process] = []
    with suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(children, timeout=END_S)
    for child in left:
        with suppress(psutil.Error):
            child.kill()
