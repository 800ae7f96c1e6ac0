"""Where the server and one of its workers spend their time in bulk: py-spy looks at their threads.

How busy a thread is, the system says; what it did, samples of its stack say. A function's share
includes native code that it calls. Being looked at costs speed, so this is no measurement of it.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
LONGER_S = 3.0  # than py-spy looks, so that there is work when it begins and ends
UNNAMED = "native code's own"  # threads
MOST_THREADS = 4  # of a process
STACK = re.compile(r"thread \((\d+)\)(?:: ([^;]*))?;?(.*) (\d+)$")
FRAME = re.compile(r"(.+) \((.+?)(?::\d+)?\)$")


class ProfileError(Exception):
    """Processes cannot be looked at; the message says why."""


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
        ProfileError: py-spy may not look at processes here, or there is nothing to look at.
    """
    seconds = max(1, round(column.seconds))
    with (
        serving(column) as running,
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(1) as thread,
    ):
        servers = [running.server] * column.client_processes
        on = column.placement.clients
        load.run(replace(column.bulk, drain=False), servers, seconds=column.warm_s, clients_on=on)
        loading = thread.submit(
            load.run, column.bulk, servers, seconds=seconds + LONGER_S, clients_on=on
        )
        time.sleep(LONGER_S / 2)
        try:
            found = _looked_at(running.pid, py_spy, seconds, Path(folder))
        except psutil.Error as error:
            raise ProfileError(f"a process has ended: {error}") from error
        finally:
            loading.result()
    return found


def _looked_at(pid: int, py_spy: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Return what `profile` does, of a server that is under load for longer than that."""
    workers = psutil.Process(pid).children()
    if not workers:
        raise ProfileError("the server has no worker")
    pids = {"server": pid, "worker": workers[0].pid}
    before, began_s = {name: _cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
    with ExitStack() as stack:
        looking = {
            name: stack.enter_context(_look(py_spy, pid, seconds, folder / name))
            for name, pid in pids.items()
        }
        said = {name: process.communicate()[1].strip() for name, process in looking.items()}
    spent_s = time.monotonic() - began_s
    after = {name: _cpu_s(pid) for name, pid in pids.items()}
    found = {}
    for name, process in looking.items():
        if process.returncode:
            raise ProfileError(f"py-spy: {said[name].splitlines()[-1] if said[name] else name}")
        cores = {  # a thread that has ended meanwhile is left out
            thread: (used_s - before[name].get(thread, 0.0)) / spent_s
            for thread, used_s in after[name].items()
        }
        found[name] = busiest((folder / name).read_text(), cores)
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
            of = sampled.setdefault(int(thread), Sampled(name or UNNAMED))
            of.functions[function] += int(count)
    found = []
    for thread, busy in sorted(cores.items(), key=lambda each: -each[1])[:MOST_THREADS]:
        of = sampled.get(thread, Sampled(UNNAMED))
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


@contextmanager
def _look(py_spy: str, pid: int, seconds: int, target: Path) -> "Iterator[subprocess.Popen[str]]":
    command = [
        py_spy, "record", "--threads", "--format", "raw", "--rate", str(SAMPLES_PER_S),
        "--duration", str(seconds), "--output", str(target), "--pid", str(pid),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _cpu_s(pid: int) -> dict[int, float]:
    return {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}
