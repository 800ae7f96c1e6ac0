"""Where the server and one of its workers spend their time in bulk: py-spy looks at their threads.

How busy a thread is, the system says; what it did, samples of its stack say. A function's share has
what native code took that it called. Being looked at costs speed, so this is no measurement of it.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import environments
import psutil
from columns import Column, serving

import load

SECTION = "profile"
SAMPLES_PER_S = 50
LEAST_SHARE = 0.02  # of a function, to be named
MOST_THREADS = 4  # of a process
STACK = re.compile(r"thread \((\d+)\): ([^;]*);?(.*) (\d+)$")
FRAME = re.compile(r"(.+) \((.+?)(?::\d+)?\)$")


@dataclass(slots=True)
class Sampled:
    """What one thread did, in samples of each function."""

    name: str
    functions: Counter[str] = field(default_factory=Counter)


def sampler(*, here: bool) -> str:
    """Return py-spy's path; unless only what is `here` counts, it is installed if need be.

    Raises:
        environments.MissingError: it is not here.
    """
    if found := shutil.which("py-spy"):
        return found
    if here:
        raise environments.MissingError("py-spy is not on the PATH")
    try:
        return str(environments.make("py-spy").with_name("py-spy"))
    except subprocess.CalledProcessError as error:
        raise environments.MissingError("py-spy could not be installed") from error


def profile(column: Column, py_spy: str) -> dict[str, Any]:
    """Load emberd in bulk and look at it.

    Returns:
        For `server` and `worker`, their threads, the busiest first: `name`, how many `cores` it
        kept busy, and the shares of its `functions`.

    Raises:
        RuntimeError: py-spy may not look at processes here; it says why.
    """
    with (
        serving(column) as running,
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
    ):
        servers = [running.server] * column.client_processes
        on = column.placement.clients
        load.run(replace(column.bulk, drain=False), servers, seconds=column.warm_s, clients_on=on)
        worker, *_ = psutil.Process(running.pid).children()
        pids = {"server": running.pid, "worker": worker.pid}
        looking = {
            name: stack.enter_context(_look(py_spy, pid, column.seconds, Path(folder, name)))
            for name, pid in pids.items()
        }
        before, began_s = {name: _cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
        load.run(column.bulk, servers, seconds=column.seconds, clients_on=on)
        spent_s = time.monotonic() - began_s
        after = {name: _cpu_s(pid) for name, pid in pids.items()}
        found = {}
        for name, process in looking.items():
            said = process.communicate()[1].strip()
            if process.returncode:
                raise RuntimeError(f"py-spy: {said.splitlines()[-1] if said else 'it failed'}")
            cores = {
                thread: (used_s - before[name].get(thread, 0.0)) / spent_s
                for thread, used_s in after[name].items()
            }
            found[name] = busiest(Path(folder, name).read_text(), cores)
        return found


def busiest(samples: str, cores: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return the busiest threads, the busiest first: see `profile`.

    `samples` are py-spy's, as `raw` with `--threads`; `cores` by a thread's id.
    """
    sampled: dict[int, Sampled] = {}
    for line in samples.splitlines():
        if match := STACK.match(line):
            thread, name, stack, count = match.groups()
            frame = FRAME.match(stack.rpartition(";")[2])
            function = " in ".join(frame.groups()) if frame else "?"
            sampled.setdefault(int(thread), Sampled(name)).functions[function] += int(count)
    found = []
    for thread, busy in sorted(cores.items(), key=lambda each: -each[1])[:MOST_THREADS]:
        of = sampled.get(thread, Sampled("native code's own"))
        shares = {name: n / of.functions.total() for name, n in of.functions.most_common()}
        found.append(
            {
                "name": of.name,
                "cores": round(busy, 3),
                "functions": {
                    name: round(share, 3) for name, share in shares.items() if share >= LEAST_SHARE
                },
            }
        )
    return found


def _look(py_spy: str, pid: int, seconds: float, target: Path) -> "subprocess.Popen[str]":
    command = [
        py_spy, "record", "--threads", "--format", "raw", "--rate", str(SAMPLES_PER_S),
        "--duration", str(max(1, round(seconds))), "--output", str(target), "--pid", str(pid),
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def _cpu_s(pid: int) -> dict[int, float]:
    return {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}
