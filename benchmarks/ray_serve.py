"""What Ray Serve costs beside emberd alone, and how far replicas add up.

    .venv/bin/python benchmarks/ray_serve.py --out FILE.json

1. One query after another, in turn at `emberd serve` and at Serve: what the way through Ray takes.
2. Bulk at 1, 2 and 4 replicas whose encoder sleeps instead of computing (`SLEEP_S` for each text),
   so that the machine's cores do not limit it: what is left of the sum of the replicas.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml
from ray_cluster import ASKS, TOKEN, queries, serving, started
from servers import Program

SLEEP_S = 0.002
REQUEST_TEXTS = 64
BULK_S = 15.0
ASKERS = 6  # for each replica
REPLICAS = (1, 2, 4)

BACKEND = f'''"""An encoder that sleeps: its vectors say which tokens they are of."""

import json
import time

import numpy as np


class SleepingBackend:
    files = ("config.json", "tokenizer.json", "model.safetensors")
    libraries = ("numpy",)

    def load(self, request):
        return SleepingEncoder(json.loads((request.folder / "config.json").read_text()))


class SleepingEncoder:
    compute = "f32"

    def __init__(self, config):
        self.dimensions = config["hidden_size"]

    def encode(self, token_ids, mask):
        time.sleep({SLEEP_S} * len(token_ids))
        rows = np.ones((len(token_ids), self.dimensions), np.float32)
        rows[:, 0] += (token_ids * mask).sum(axis=1)
        return rows
'''


def prepare(folder: Path) -> None:
    """Write a model, a backend that sleeps, and the config that names both."""
    from emberd.backends.tiny_bert import tiny_bert

    tiny_bert(folder / "model")
    about = folder / "plugin" / "emberd_sleeping-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emberd-sleeping\nVersion: 1.0\n")
    entry = "[emberd.backends]\nsleeping = emberd_sleeping:SleepingBackend\n"
    (about / "entry_points.txt").write_text(entry)
    (folder / "plugin" / "emberd_sleeping.py").write_text(BACKEND)
    model = {"sources": [{"path": str(folder / "model")}], "dimensions": 64, "pooling": "mean"}
    sleeps = {
        f"sleeps{count}": {**model, "backend": "sleeping", "replicas": count, "pinned": True}
        for count in REPLICAS
    }
    config = {"default": "tiny", "models": {"tiny": {**model, "pinned": True}, **sleeps}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def bulk(url: str, model: str, askers: int) -> float:
    """Return texts per second of so many clients at once."""
    texts = ["the cat eats a bird"] * REQUEST_TEXTS
    ends_s = time.monotonic() + BULK_S

    def ask() -> int:
        done = 0
        with httpx2.Client(base_url=url, timeout=120, headers=ASKS) as client:
            while time.monotonic() < ends_s:
                body = {"texts": texts, "model": model, "encoding": "base64", "cache": False}
                client.post("/embed", json=body).raise_for_status()
                done += len(texts)
        return done

    began_s = time.monotonic()
    with ThreadPoolExecutor(askers) as pool:
        total = sum(pool.map(lambda _: ask(), range(askers)))
    return total / (time.monotonic() - began_s)


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--haproxy", action="store_true", help="before the ingress")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder)
        plugin = os.pathsep.join((str(folder / "plugin"), os.environ.get("PYTHONPATH", "")))
        environment = {"EMBERD_HOME": str(folder), "PYTHONPATH": plugin, "EMBERD_TOKEN": TOKEN}
        alone = Program(
            name="emberd",
            folder=folder / "alone",
            command=lambda port: [sys.executable, "-m", "emberd", "serve", "--port", str(port)],
            environment=environment,
        )
        cores = psutil.cpu_count()
        figures: dict[str, Any] = {
            "cores": cores,
            "haproxy": asked.haproxy,
            "sleep_s": SLEEP_S,
            "bulk": {},
        }
        wanted = {"tiny": 1} | {f"sleeps{count}": count for count in REPLICAS}
        with (
            alone.run() as running,
            started(environment, "--num-cpus", "16", haproxy=asked.haproxy) as whole,
            serving(whole, replicas=wanted) as serve,
        ):
            own = f"http://127.0.0.1:{running.server.port}"
            url = f"http://127.0.0.1:{serve.port}"
            servers = {"emberd alone": running.server, "Ray Serve": serve}
            figures["query"] = queries(servers, "tiny")
            for count in REPLICAS:
                figures["bulk"][str(count)] = round(bulk(url, f"sleeps{count}", ASKERS * count), 1)
            figures["bulk_alone"] = round(bulk(own, "sleeps1", ASKERS), 1)
        one = figures["bulk"]["1"]
        figures["of_the_sum"] = {
            str(count): round(figures["bulk"][str(count)] / (count * one), 3) for count in REPLICAS
        }
    asked.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(asked.out.read_text())


if __name__ == "__main__":
    main()
