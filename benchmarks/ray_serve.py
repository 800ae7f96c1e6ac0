"""What Ray Serve costs beside emberd alone, and how far replicas add up.

    .venv/bin/python benchmarks/ray_serve.py --out FILE.json
    ... --replicas 1,2,4,8 --sleep-ms 0.075 --texts 100 --bytes 500 --clients 8 --dimensions 768

1. One query after another, of a model that takes no time, in turn at `emberd serve` and at Serve:
   what the way through Ray takes.
2. Bulk at 1, 2 and 4 replicas whose encoder sleeps instead of computing, so many ms for each text,
   so that the machine's cores do not limit it: what is left of N times one replica, in `emberd
   serve` with N of them and behind Serve, and how many cores each kind of process used.

The second line is BERT-base on H200s: as fast, and with as many bytes in requests and answers. Its
texts have few tokens and are filled up with spaces, as tokenizing for N GPUs takes more cores.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import machine
import yaml
from columns import MOST_CLIENT_PROCESSES
from placement import available
from ray_cluster import ASKS, TOKEN, cores_used, processor_time_s, queries, serving, started
from servers import Program

from emberd.bench.client import FRESH, Server
from load import Load, Request, run

WARM_S = 3.0
AT_ONCE, SMALL = "at-once", 64  # a model that takes no time, and its dimensions
ALONE, ON_RAY = "alone", "ray"  # homes
TEXT = "the cat eats a bird"
BACKEND = '''"""An encoder that sleeps: its vectors say which tokens they are of."""

import json
import os
import time

import numpy as np


class SleepingBackend:
    files = ("config.json", "tokenizer.json", "model.safetensors")
    libraries = ("numpy",)

    def load(self, request):
        config = json.loads((request.folder / "config.json").read_text())
        return SleepingEncoder(config["hidden_size"], config["sleep_s"], config["devices"])


class SleepingEncoder:
    compute = "f32"

    def __init__(self, dimensions, sleep_s, devices):
        self.dimensions = dimensions
        self.sleep_s = sleep_s
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")  # Ray gives a replica one of its GPUs
        self.devices = seen.split(",") if seen else [str(number) for number in range(devices)]

    def encode(self, token_ids, mask):
        time.sleep(self.sleep_s * len(token_ids))
        rows = np.ones((len(token_ids), self.dimensions), np.float32)
        rows[:, 0] += (token_ids * mask).sum(axis=1)
        return rows
'''


def prepare(folder: Path, asked: argparse.Namespace) -> None:
    """Write the models, a backend that sleeps, and two homes whose config names both."""
    from emberd.backends.tiny_bert import tiny_bert

    def model(name: str, dimensions: int, sleep_s: float) -> None:
        tiny_bert(folder / name)
        file = folder / name / "config.json"
        changed = {"hidden_size": dimensions, "sleep_s": sleep_s, "devices": max(asked.replicas)}
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))

    model(AT_ONCE, SMALL, 0.0)
    model("sleeps", asked.dimensions, asked.sleep_ms / 1000)
    about = folder / "plugin" / "emberd_sleeping-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emberd-sleeping\nVersion: 1.0\n")
    entry = "[emberd.backends]\nsleeping = emberd_sleeping:SleepingBackend\n"
    (about / "entry_points.txt").write_text(entry)
    (folder / "plugin" / "emberd_sleeping.py").write_text(BACKEND)

    def entry_of(model: str, dimensions: int, replicas: int) -> dict[str, object]:
        return {
            "sources": [{"path": str(folder / model)}],
            "dimensions": dimensions,
            "pooling": "mean",
            "backend": "sleeping",
            "pinned": True,
            "replicas": replicas,
        }

    models = {AT_ONCE: entry_of(AT_ONCE, SMALL, 1)} | {
        f"sleeps{count}": entry_of("sleeps", asked.dimensions, count) for count in asked.replicas
    }
    limits = {"max_loaded": len(models), "memory_budget": "16GiB"}
    config = {"default": AT_ONCE, "limits": limits, "models": models}
    for home in (folder / ALONE, folder / ON_RAY):
        home.mkdir()
        (home / "config.yaml").write_text(yaml.safe_dump(config))


class Bench:
    """What is asked of servers whose encoders sleep, and the figures."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.figures: dict[str, Any] = {
            "machine": machine.facts(),
            "haproxy": asked.haproxy,
            "ingresses": asked.ingresses,
            "sleep_s": asked.sleep_ms / 1000,
            "texts": asked.texts,
            "bytes": max(asked.bytes, len(TEXT)),
            "clients": asked.clients,
            "dimensions": asked.dimensions,
            "bulk": {},
            "bulk_alone": {},
            "cores_used": {},
            "cores_used_alone": {},
        }

    def bulk(self, name: str, server: Server, count: int) -> None:
        """Load so many replicas, and note texts per second and who used how many cores."""
        asked = self.asked
        texts = [TEXT.ljust(asked.bytes)] * asked.texts
        body = json.dumps({"texts": texts, "model": f"sleeps{count}", "encoding": "base64"})
        asking = Server(server.host, server.port, headers=FRESH | ASKS)
        content = asking.post(asking.path, body.encode()).decode()
        clients = asked.clients * count
        requests = [Request(content, asked.texts, 0, 0)] * clients  # each process has some of them
        load = Load(clients=clients, requests=requests, drain=True)
        processes = [server] * min(MOST_CLIENT_PROCESSES, count)
        run(load, processes, seconds=WARM_S, clients_on=available())
        before, began_s = processor_time_s(), time.monotonic()
        numbers = run(load, processes, seconds=asked.seconds, clients_on=available())
        used = cores_used(before, began_s) | {"the clients": round(numbers["client_cores"], 2)}
        self.figures[name][str(count)] = round(numbers["texts_per_s"], 1)
        self.figures[name.replace("bulk", "cores_used")][str(count)] = used
        print(name, count, self.figures[name][str(count)], used, file=sys.stderr, flush=True)

    def write(self) -> None:
        """Keep the figures, with the share of N times one replica."""
        for name, share in (("bulk", "of_the_sum"), ("bulk_alone", "of_the_sum_alone")):
            if rates := self.figures[name]:
                fewest = min(rates, key=int)
                one = rates[fewest] / int(fewest)
                self.figures[share] = {
                    count: round(rate / (int(count) * one), 3) for count, rate in rates.items()
                }
        self.asked.out.write_text(json.dumps(self.figures, indent=2) + "\n")


def main() -> None:
    """Measure, and write the figures as they come."""
    asked = _arguments()
    bench = Bench(asked)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder, asked)
        plugin = os.pathsep.join((str(folder / "plugin"), os.environ.get("PYTHONPATH", "")))
        common = {"PYTHONPATH": plugin, "EMBERD_TOKEN": TOKEN}
        alone = Program(
            name="emberd",
            folder=folder / ALONE,
            command=lambda port: [sys.executable, "-m", "emberd", "serve", "--port", str(port)],
            environment=common | {"EMBERD_HOME": str(folder / ALONE)},
        )
        with alone.run() as running:
            for count in asked.replicas:
                bench.bulk("bulk_alone", running.server, count)
                bench.write()
        if asked.alone:
            return
        wanted = {AT_ONCE: 1} | {f"sleeps{count}": count for count in asked.replicas}
        count = sum(wanted.values())
        room = ("--num-cpus", str(2 + asked.ingresses + count), "--num-gpus", str(count))
        takes = ("--ingresses", str(asked.ingresses), "--gpus", "1")  # as those that sleep pass for
        with (
            alone.run() as running,
            started(
                common | {"EMBERD_HOME": str(folder / ON_RAY)}, *room, haproxy=asked.haproxy
            ) as whole,
            serving(whole, *takes, replicas=wanted) as serve,
        ):
            servers: Mapping[str, Server] = {"emberd alone": running.server, "Ray Serve": serve}
            bench.figures["query"] = queries(servers, AT_ONCE)
            for count in asked.replicas:
                bench.bulk("bulk", serve, count)
                bench.write()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--haproxy", action="store_true", help="before the ingress")
    parser.add_argument("--ingresses", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="only emberd serve, without Ray")
    numbers: Callable[[str], list[int]] = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--replicas", type=numbers, default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement in bulk")
    parser.add_argument("--sleep-ms", type=float, default=2.0, help="for each text")
    parser.add_argument("--texts", type=int, default=64, help="in a request")
    parser.add_argument("--bytes", type=int, default=0, help="of a text, with spaces at its end")
    parser.add_argument("--clients", type=int, default=6, help="for each replica")
    parser.add_argument("--dimensions", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
