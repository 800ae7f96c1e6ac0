"""A temporary server to measure, with the user's model and limits.

Its home is a temporary folder, so it does not touch the state of a server that is already running;
the Hub's cache is shared. Models are compiled again there.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from emberd.bench.client import Server
from emberd.config.load import Config
from emberd.config.paths import environment_apart
from emberd.errors import WorkerStartError
from emberd.registry.spec import ModelSpec

START_S = 60.0
END_S = 20.0


@dataclass(frozen=True, slots=True)
class OwnServer:
    """The temporary server. `start_s` is how long it took to listen."""

    server: Server
    pid: int
    start_s: float


@contextmanager
def own_server(config: Config, spec: ModelSpec) -> Iterator[OwnServer]:
    """Run a server whose default model is `spec`, and end it afterwards.

    Raises:
        WorkerStartError: it did not start; the hint quotes the last lines of its log.
    """
    with TemporaryDirectory(prefix="emberd-bench-") as folder:
        home = Path(folder)
        (home / "config.yaml").write_text(json.dumps(_configuration(config, spec)))
        began_s = time.perf_counter()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "emberd.cli.main", "serve", "--port", "0"],
                env=environment_apart(home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            port = _port(process, home)
            start_s = time.perf_counter() - began_s
            server = Server("127.0.0.1", port, model=spec.name)
            yield OwnServer(server, process.pid, start_s)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            process.wait()


def _configuration(config: Config, spec: ModelSpec) -> dict[str, object]:
    """Return a configuration with this model and the limits in force, but no server settings.

    A token, a socket or a host name would only get in the way.
    """
    entry = {key: value for key, value in asdict(spec).items() if key != "name"}
    entry["sources"] = [
        {key: value for key, value in source.items() if value is not None}
        for source in entry["sources"]
    ]
    kept = {key: value for key, value in entry.items() if value is not None}
    limits = asdict(config.settings.limits)
    return {"default": spec.name, "limits": limits, "models": {spec.name: kept}}


def _port(process: "subprocess.Popen[bytes]", home: Path) -> int:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        with suppress(OSError, ValueError):
            return int(json.loads((home / "state" / "server.json").read_bytes())["port"])
        time.sleep(0.01)
    process.kill()
    last = (home / "log").read_text(errors="replace").strip().splitlines()[-5:]
    raise WorkerStartError(
        "The server to be measured did not start.",
        hint="; ".join(last) or "Try `emberd serve`.",
    )
