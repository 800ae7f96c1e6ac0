"""emberd and the server it replaces, as real processes on free loopback ports.

Each runs as its documentation says to run it; nothing of either is imported here.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from client import Client

MIB = 2**20
START_S = 60.0
END_S = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `start_s`: from the start of its process to its first answer."""

    pid: int
    port: int
    start_s: float

    def resident_mib(self) -> float:
        """Resident memory of the process and all below it; shared pages count in each."""
        return sum(process.memory_info().rss for process in self._tree()) / MIB

    def private_mib(self) -> float:
        """The part of it that no other process shares: what would be free if it ended."""
        return sum(process.memory_full_info().uss for process in self._tree()) / MIB

    def _tree(self) -> list[psutil.Process]:
        server = psutil.Process(self.pid)
        return [server, *server.children(recursive=True)]


class Kind(ABC):
    """One of the servers that are compared; `folder` is a temporary one of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True)

    @contextmanager
    def run(self) -> Iterator[Running]:
        """Start it, wait until it answers, and end it and all its children afterwards."""
        port = self._choose_port()
        began_s = time.perf_counter()
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self._command(port),
                cwd=self.folder,
                env=_plain_environment() | self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                port = self._wait(process, port, began_s)
                yield Running(process.pid, port, time.perf_counter() - began_s)
            except Exception:
                self.show_log()
                raise
            finally:
                _end(process)

    def _wait(self, process: "subprocess.Popen[bytes]", port: int, began_s: float) -> int:
        while time.perf_counter() - began_s < START_S:
            found = self._find_port(process.pid, port)
            if found:
                with suppress(ConnectionError), Client(found) as client:
                    client.get("/health")
                    return found
            if process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start")

    def show_log(self) -> None:
        """Print the last lines that it logged."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        print(f"the log of {self.name} ends with:", *lines[-20:], sep="\n", file=sys.stderr)

    @abstractmethod
    def _choose_port(self) -> int: ...

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...

    @abstractmethod
    def _environment(self) -> dict[str, str]: ...

    @abstractmethod
    def _find_port(self, pid: int, port: int) -> int | None: ...


class Emberd(Kind):
    """`emberd serve` of this Python environment, with a home of its own."""

    def __init__(self, model: str, folder: Path) -> None:
        super().__init__(f"emberd {model}", folder)
        self._model = model

    def _choose_port(self) -> int:
        return 0

    def _command(self, port: int) -> list[str]:
        serve = ["-m", "emberd.cli.main", "serve"]
        return [sys.executable, *serve, "--port", str(port), "--default", self._model]

    def _environment(self) -> dict[str, str]:
        return {"EMBERD_HOME": str(self.folder), "HF_HUB_CACHE": str(self.folder / "hub")}

    def _find_port(self, pid: int, port: int) -> int | None:
        del port  # it took a free one and says which
        with suppress(OSError, ValueError):
            noted = json.loads((self.folder / "state" / "server.json").read_bytes())
            return int(noted["port"]) if noted["pid"] == pid else None
        return None


class OldServer(Kind):
    """The server that emberd replaces, in an environment of its own.

    Args:
        name: what the results call it.
        folder: a temporary folder of its own.
        code: its Python code, which names its model in one line.
        python: the interpreter of its environment.
        model: a folder with the model, in place of the name on the Hub.
        environment: variables to set for it.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        code: str,
        python: Path,
        model: Path,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(name, folder)
        named = f"MODEL_NAME = {str(model)!r}"
        here, replaced = re.subn(r"^MODEL_NAME = .*$", lambda _: named, code, flags=re.MULTILINE)
        if replaced != 1:
            raise ValueError(f"the old server's code names its model {replaced} times, not once")
        (folder / "server.py").write_text(here)
        self._python = python
        self._extra = dict(environment)

    def _choose_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            return int(free.getsockname()[1])

    def _command(self, port: int) -> list[str]:
        uvicorn = ["-m", "uvicorn", "server:app", "--host", "127.0.0.1", "--log-level", "warning"]
        return [str(self._python), *uvicorn, "--port", str(port)]

    def _environment(self) -> dict[str, str]:
        return self._extra

    def _find_port(self, pid: int, port: int) -> int | None:
        del pid
        return port


def _plain_environment() -> dict[str, str]:
    """This environment, without what would change a server; Python keeps what it compiles."""
    dropped = ("EMBERD_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"HF_HUB_OFFLINE": "1"}  # neither looks for a Hub: the model is here


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and whatever it leaves behind."""
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
