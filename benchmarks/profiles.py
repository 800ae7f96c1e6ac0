"""Where the server and one of its workers spend their time in bulk: py-spy looks at their threads.

How busy a thread is, the system says; what it did, samples of its stack say. A function's share
includes native code that it calls. Being looked at costs speed, so this is no measurement of it.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
UNNAMED = "native code's own"  # a thread without a name, or without a sample
MOST_THREADS = 4  # of a process
STACK = re.compile(r"thread \((\d+)\)(?:: ([^;]*))?;?(.*) (\d+)$")
FRAME = re.compile(r"(.+) \((.+?)(?::\d+)?\)$")


class ProfileError(Exception):
    """Processes cannot be looked at; the message says why."""


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
    with serving(column) as running, ThreadPoolExecutor(1) as thread:
        servers = [running.server] * column.client_processes
        on = column.placement.clients
        load.run(replace(column.bulk, drain=False), servers, seconds=column.warm_s, clients_on=on)
        loading = thread.submit(
            load.run, column.bulk, servers, seconds=seconds + LONGER_S, clients_on=on
        )
        time.sleep(LONGER_S / 2)
        try:
            found = _looked_at(running.pid, py_spy, seconds)
        except psutil.Error as error:
            raise ProfileError(f"a process has ended: {error}") from error
        finally:
            loading.result()
    return found


def _looked_at(pid: int, py_spy: str, seconds: int) -> dict[str, Any]:
    """Return what `profile` does, of a server that is under load for longer than that."""
    workers = psutil.Process(pid).children()
    if not workers:
        raise ProfileError("the server has no worker")
    pids = [pid, workers[0].pid]
    before, began_s = [_cpu_s(each) for each in pids], time.monotonic()
    with ThreadPoolExecutor(len(pids)) as threads:
        samples = [*threads.map(lambda each: _samples(py_spy, each, seconds), pids)]
    spent_s = time.monotonic() - began_s
    found = []
    for each, seen, used_before in zip(pids, samples, before, strict=True):
        cores = {  # a thread that has ended meanwhile is left out
            thread: (used_s - used_before.get(thread, 0.0)) / spent_s
            for thread, used_s in _cpu_s(each).items()
        }
        found.append(busiest(seen, cores))
    return dict(zip(("server", "worker"), found, strict=True))


def busiest(samples: str, cores: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return the busiest threads, the busiest first: see `profile`.

    `samples` are py-spy's, as `raw` with `--threads`; `cores` by a thread's id.
    """
    names: dict[int, str] = {}
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for line in samples.splitlines():
        if match := STACK.match(line):
            thread, name, stack, count = match.groups()
            frame = FRAME.match(stack.rpartition(";")[2])
            function = " in ".join(frame.groups()) if frame else "?"
            names[int(thread)] = name or UNNAMED
            counts[int(thread)][function] += int(count)
    found = []
    for at, busy in sorted(cores.items(), key=lambda each: -each[1])[:MOST_THREADS]:
        shares = {name: n / counts[at].total() for name, n in counts[at].most_common()}
        found.append(
            {
                "name": names.get(at, UNNAMED),
                "cores": round(busy, 3),
                "functions": {
                    name: round(share, 3) for name, share in shares.items() if share >= LEAST_SHARE
                },
            }
        )
    return found


def _samples(py_spy: str, pid: int, seconds: int) -> str:
    """Return what py-spy saw in so long; see `busiest`. Raises ProfileError."""
    with tempfile.NamedTemporaryFile() as target:
        command = [
            py_spy, "record", "--threads", "--format", "raw", "--rate", str(SAMPLES_PER_S),
            "--duration", str(seconds), "--output", target.name, "--pid", str(pid),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it failed"]
            raise ProfileError(f"py-spy: {said[-1]}")
        return Path(target.name).read_text()


def _cpu_s(pid: int) -> dict[int, float]:
    return {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}
