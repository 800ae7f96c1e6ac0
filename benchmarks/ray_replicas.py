"""Replicas through Ray Serve beside as many servers alone, each with its own cores or GPU.

    python benchmarks/ray_replicas.py --replicas 1,2,3 --cores-each 4 --out FILE.json
    python benchmarks/ray_replicas.py --replicas 1,2 --gpus --model bert-base --out FILE.json

1. One query after another, in turn at `emberd serve` and at Serve: what the way through Ray takes.
2. Passages in bulk at N servers at once, each loaded by its own clients; then at Serve with N
   replicas: its share of their sum. Servers, Ray and the clients have the other processors.
3. How many cores each kind of process used meanwhile: what is full, if the GPUs are not.

Files are another matter: `ray_files.py`.
Weights are random. For Ray, see `ray_cluster.py`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import machine
import made
from placement import available, running_on
from ray_cluster import (
    ASKS,
    TOKEN,
    WITHIN_S,
    cores_used,
    processor_time_s,
    queries,
    serving,
    started,
)
from servers import Program

from emberd.bench.client import Server
from load import run

CLIENTS_EACH = 8


def main() -> None:
    """Measure, and write the figures as they come."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="emberd-ray-") as folder:
        bench = Bench(asked, Path(folder))
        for count in asked.replicas:
            bench.measure(count)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    counts: Callable[[str], list[int]] = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--replicas", type=counts, default=[1, 2])
    parser.add_argument("--cores-each", type=int, default=1)
    parser.add_argument("--gpus", action="store_true", help="a GPU for each replica")
    parser.add_argument("--model", choices=made.SIZES, default="minilm")
    parser.add_argument("--compute", choices=("f32", "bf16", "f16"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--haproxy", action="store_true", help="before the ingress")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json")
    parser.add_argument("--few", action="store_true", help="few texts: does it work at all?")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


class Bench:
    """A model, and what was measured of it."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked = asked
        self.folder = folder
        self.compute = asked.compute or machine.fastest_compute(gpus=bool(asked.gpus))
        self.model = made.model(asked.model, folder / "model", asked.tokenizer)
        self.requests = made.Requests(self.model, answers="base64", few=asked.few)
        processors = available()
        used = 0 if asked.gpus else asked.cores_each * max(asked.replicas)
        self.parts = [
            processors[number * asked.cores_each : (number + 1) * asked.cores_each]
            for number in range(max(asked.replicas))
        ]
        self.rest = processors[used:] or processors
        self.figures: dict[str, Any] = {
            "machine": machine.facts(),
            "model": asked.model,
            "compute": self.compute,
            "each": {"gpus": 1} if asked.gpus else {"cores": asked.cores_each},
            "others_on": len(self.rest),
            "haproxy": asked.haproxy,
            "replicas": {},
        }

    def home(self, name: str, *, replicas: int = 1) -> Path:
        """Write a configuration whose only model is the one that is measured."""
        backend = "mlx" if self.asked.gpus else "openvino"
        home = made.home(
            self.folder / name, self.model, compute=self.compute, backend=backend,
            more=f"pinned: true\nreplicas: {replicas}" if replicas > 1 else "pinned: true",
        )  # fmt: skip
        if not self.asked.gpus:
            config = home / "config.yaml"
            limits = f"idle_unload: 1h, threads: {self.asked.cores_each}"
            config.write_text(config.read_text().replace("idle_unload: 1h", limits))
        return home

    def measure(self, count: int) -> None:
        """Measure so many servers alone and replicas on Ray, in turn."""
        with ExitStack() as stack:
            stack.enter_context(running_on(self.rest))
            alone = [stack.enter_context(self.alone(number)) for number in range(count)]
            serve = stack.enter_context(self.on_ray(count))
            found: dict[str, Any] = {"alone": [], "serve": []}
            if count == 1:
                found["query"] = queries({"emberd alone": alone[0], "Ray Serve": serve})
            bulk = self.requests.bulk
            load = replace(
                bulk,
                clients=CLIENTS_EACH * count,
                requests=[replace(each, content=asking(each.content)) for each in bulk.requests],
            )
            for name, targets in [("alone", alone), ("serve", [serve] * count)] * self.asked.rounds:
                before, began_s = processor_time_s(), time.monotonic()
                numbers = run(load, targets, seconds=self.asked.seconds, clients_on=self.rest)
                found[f"{name}_cores"] = cores_used(before, began_s)
                found[name].append({key: round(value, 2) for key, value in numbers.items()})
        rates = {
            name: statistics.median(each["texts_per_s"] for each in found[name])
            for name in ("alone", "serve")
        }
        found |= {"texts_per_s": rates, "of_the_sum": round(rates["serve"] / rates["alone"], 3)}
        self.write(str(count), found)

    def write(self, key: str, found: object) -> None:
        """Note figures, and keep what there is of them."""
        self.figures["replicas" if key.isdigit() else key] = (
            {**self.figures["replicas"], key: found} if key.isdigit() else found
        )
        print(key, json.dumps(found), flush=True)
        self.asked.out.write_text(json.dumps(self.figures, indent=1) + "\n")

    @contextmanager
    def alone(self, number: int) -> Iterator[Server]:
        """Run `emberd serve`, with its own part of the machine."""
        home = self.home(f"alone-{number}")
        program = Program(
            name="emberd", folder=home,
            command=lambda port: [sys.executable, "-m", "emberd", "serve", "--port", str(port)],
            environment=self.environment(home) | {"CUDA_VISIBLE_DEVICES": str(number)},
        )  # fmt: skip
        part = self.rest if self.asked.gpus else self.parts[number]
        with running_on(part), program.run() as running:
            url = f"http://127.0.0.1:{running.server.port}"
            httpx2.post(f"{url}/load", timeout=WITHIN_S, headers=ASKS).raise_for_status()
            yield running.server

    @contextmanager
    def on_ray(self, count: int) -> Iterator[Server]:
        """Serve so many replicas on a Ray of one node."""
        home = self.home(f"ray-{count}", replicas=count)
        takes = ["--gpus", "1"] if self.asked.gpus else ["--cpus", str(self.asked.cores_each)]
        parts = [] if self.asked.gpus else self.parts[:count]
        room = self.room(count) if self.asked.gpus else ["--num-cpus", "1"]
        haproxy = self.asked.haproxy
        with (
            started(self.environment(home), *room, nodes=parts, haproxy=haproxy) as environment,
            serving(
                environment, *takes, replicas={made.NAME: count}, on_nodes=bool(parts)
            ) as server,
        ):
            yield server

    def room(self, count: int) -> list[str]:
        """Return what the node is said to have."""
        cores = 4 + (1 if self.asked.gpus else self.asked.cores_each) * count
        return ["--num-cpus", str(cores)] + (["--num-gpus", str(count)] if self.asked.gpus else [])

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of everything that has this home."""
        path = os.environ.get("PYTHONPATH", "")
        return {"EMBERD_HOME": str(home), "PYTHONPATH": path, "EMBERD_TOKEN": TOKEN}


def asking(content: str) -> str:
    """Return a request with the token."""
    return content.replace("\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n", 1)


if __name__ == "__main__":
    main()
