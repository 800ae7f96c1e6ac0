"""Ray on this machine, as the measurements need it: started and told by the documented commands.

`ray stop` ends whatever Ray runs here, so let it be the only one.
"""

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml
from placement import running_on
from servers import end

from emberd.bench.client import Server

QUERIES, WARM = 300, 30
WITHIN_S = 240.0
TOKEN = "bench"  # noqa: S105 - what is behind HAProxy takes one
ASKS = {"Authorization": f"Bearer {TOKEN}"}
BIN = Path(sys.executable).parent
KINDS = {  # what is in the command line of a process, and what that is
    "ray::ProxyActor": "Ray's proxy", "haproxy": "HAProxy", "emberd-ingress": "the ingress",
    "ray::ServeReplica": "the actors of replicas", "emberd.worker": "emberd's workers",
    "emberd serve": "emberd alone",
}  # fmt: skip
BOUNDS = ("min_replicas", "initial_replicas", "max_replicas")


@contextmanager
def started(
    environment: Mapping[str, str],
    *room: str,
    nodes: Sequence[Sequence[int]] = (),
    haproxy: bool = False,
) -> Iterator[dict[str, str]]:
    """Start Ray with so much room; yield the environment of the commands that use it.

    Each of `nodes` is one more node, with these processors; the head is where the caller is.
    """
    private = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "EMBERD_TOKEN": TOKEN}
    whole = {**os.environ, **environment, **private}
    port = str(free_port())
    start = [sys.executable, "-m", "emberd", "ray", "start", *["--haproxy"] * haproxy]
    head = ["--head", "--port", port, "--include-dashboard", "false", "--resources", '{"head": 1}']
    try:
        subprocess.run([*start, *head, *room], env=whole, check=True, stdout=sys.stderr)
        for processors in nodes:
            room_there = ["--num-cpus", str(len(processors)), "--resources", '{"part": 1}']
            more = ["--address", f"127.0.0.1:{port}", *room_there]
            with running_on(processors):
                subprocess.run([*start, *more], env=whole, check=True, stdout=sys.stderr)
        yield whole
    finally:
        subprocess.run([str(BIN / "ray"), "stop"], env=whole, check=True, stdout=sys.stderr)


@contextmanager
def serving(
    environment: Mapping[str, str],
    *takes: str,
    replicas: Mapping[str, int],
    on_nodes: bool = False,
) -> Iterator[Server]:
    """Serve what the home in the environment says, with so many replicas of these models.

    `on_nodes`: each of them on one of the further nodes.
    """
    home, port = Path(environment["EMBERD_HOME"]), free_port()
    printed = subprocess.run(
        [sys.executable, "-m", "emberd", "ray", "config", *takes],
        env=environment, stdout=subprocess.PIPE, check=True, text=True,
    ).stdout  # fmt: skip
    document = yaml.safe_load(printed)
    document["http_options"]["port"] = port
    document["proxy_location"] = "HeadOnly"
    document["applications"][0]["deployments"][0]["ray_actor_options"]["resources"] = {"head": 0.1}
    for each in document["applications"][0]["deployments"]:
        if each["name"] in replicas:
            each["autoscaling_config"] |= dict.fromkeys(BOUNDS, replicas[each["name"]])
            if on_nodes:
                each["ray_actor_options"]["resources"] = {"part": 1}
    file = home / "serve.yaml"
    file.write_text(yaml.safe_dump(document))
    command = [str(BIN / "serve"), "run", "--address", "auto", str(file)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            until(lambda: len(workers(home)) >= sum(replicas.values()))
            until(lambda: answers(f"http://127.0.0.1:{port}/ready"))
            yield Server("127.0.0.1", port)
        finally:
            end(process)


def queries(servers: Mapping[str, Server], model: str | None = None) -> dict[str, Any]:
    """Ask each in turn, one query at a time; return milliseconds. Serve is the last."""
    took: dict[str, list[float]] = {name: [] for name in servers}
    urls = {name: f"http://127.0.0.1:{each.port}" for name, each in servers.items()}
    clients = {
        name: httpx2.Client(base_url=url, timeout=60, headers=ASKS) for name, url in urls.items()
    }
    asked = {"cache": False} | ({"model": model} if model else {})
    for number in range(QUERIES + WARM):
        for name, client in clients.items():
            began_s = time.perf_counter()
            body = {"texts": [f"where was number {number} built"], **asked}
            client.post("/embed", json=body).raise_for_status()
            if number >= WARM:
                took[name].append((time.perf_counter() - began_s) * 1000)
    found = {
        name: {
            "median_ms": round(statistics.median(each), 2),
            "p95_ms": round(statistics.quantiles(each, n=20)[-1], 2),
        }
        for name, each in took.items()
    }
    alone, serve = (each["median_ms"] for each in found.values())
    return {**found, "overhead_ms": round(serve - alone, 2)}


def processor_time_s() -> dict[str, float]:
    """Return the processor time of all processes of Ray and emberd, by what they are."""
    found: dict[str, float] = {}
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        command = " ".join(process.info["cmdline"] or [])
        kind = next((name for sign, name in KINDS.items() if sign in command), None)
        if kind and process.info["cpu_times"] and process.pid != os.getpid():
            found[kind] = found.get(kind, 0.0) + sum(process.info["cpu_times"][:2])
    return found


def cores_used(before: Mapping[str, float], began_s: float) -> dict[str, float]:
    """Return how many cores each kind of process has kept busy; `before` is `processor_time_s`."""
    spent_s = time.monotonic() - began_s
    return {
        kind: round((used_s - before.get(kind, 0)) / spent_s, 2)
        for kind, used_s in processor_time_s().items()
    }


def workers(home: Path) -> list[psutil.Process]:
    """Return the worker processes that have this home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            is_worker = process.info["cmdline"][-3:-1] == ["-m", "emberd.worker"]
            if is_worker and process.environ().get("EMBERD_HOME") == str(home):
                found.append(process)
        except (psutil.Error, TypeError):
            continue
    return found


def answers(url: str) -> bool:
    """Whether a GET there is answered with 200."""
    try:
        return httpx2.get(url, timeout=10, headers=ASKS).status_code == 200
    except httpx2.TransportError:
        return False


def until(so: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Wait until something is so; exit if it never is."""
    ends_s = time.monotonic() + within_s
    while not so():
        if time.monotonic() > ends_s:
            sys.exit(f"Nothing came of it within {within_s:.0f} s.")
        time.sleep(0.5)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
