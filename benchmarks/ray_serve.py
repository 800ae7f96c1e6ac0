"""What Ray Serve costs beside emberd alone, and how far replicas add up.

    .venv/bin/python benchmarks/ray_serve.py --out FILE.json
    ... --replicas 1,2 --sleep-ms 0.45 --texts 100 --clients 8 --dimensions 768     as a GPU would

1. One query after another, in turn at `emberd serve` and at Serve: what the way through Ray takes.
2. Bulk at 1, 2 and 4 replicas whose encoder sleeps instead of computing, so many ms for each text,
   so that the machine's cores do not limit it: what is left of the sum of the replicas.
"""

import argparse
import json
import os
import shutil
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

BULK_S = 15.0
BACKEND = '''"""An encoder that sleeps: its vectors say which tokens they are of."""

import json
import time

import numpy as np


class SleepingBackend:
    files = ("config.json", "tokenizer.json", "model.safetensors")
    libraries = ("numpy",)

    def load(self, request):
        config = json.loads((request.folder / "config.json").read_text())
        return SleepingEncoder(config["hidden_size"], config["sleep_s"])


class SleepingEncoder:
    compute = "f32"

    def __init__(self, dimensions, sleep_s):
        self.dimensions = dimensions
        self.sleep_s = sleep_s

    def encode(self, token_ids, mask):
        time.sleep(self.sleep_s * len(token_ids))
        rows = np.ones((len(token_ids), self.dimensions), np.float32)
        rows[:, 0] += (token_ids * mask).sum(axis=1)
        return rows
'''


def prepare(folder: Path, asked: argparse.Namespace) -> None:
    """Write a model, a backend that sleeps, and the config that names both."""
    from emberd.backends.tiny_bert import tiny_bert

    tiny_bert(folder / "tiny")
    shutil.copytree(folder / "tiny", folder / "model")
    file = folder / "model" / "config.json"
    stated = json.loads(file.read_text())
    changed = {"hidden_size": asked.dimensions, "sleep_s": asked.sleep_ms / 1000}
    file.write_text(json.dumps(stated | changed))
    about = folder / "plugin" / "emberd_sleeping-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emberd-sleeping\nVersion: 1.0\n")
    entry = "[emberd.backends]\nsleeping = emberd_sleeping:SleepingBackend\n"
    (about / "entry_points.txt").write_text(entry)
    (folder / "plugin" / "emberd_sleeping.py").write_text(BACKEND)

    def entry_of(model: str, dimensions: int, **more: object) -> dict[str, object]:
        sources = [{"path": str(folder / model)}]
        return {
            "sources": sources,
            "dimensions": dimensions,
            "pooling": "mean",
            "pinned": True,
        } | more

    sleeps = {
        f"sleeps{count}": entry_of("model", asked.dimensions, backend="sleeping", replicas=count)
        for count in asked.replicas
    }
    config = {"default": "tiny", "models": {"tiny": entry_of("tiny", 64), **sleeps}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def bulk(url: str, model: str, askers: int, texts_each: int) -> float:
    """Return texts per second of so many clients at once."""
    texts = ["the cat eats a bird"] * texts_each
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
    numbers = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--replicas", type=numbers, default=[1, 2, 4])
    parser.add_argument("--sleep-ms", type=float, default=2.0, help="for each text")
    parser.add_argument("--texts", type=int, default=64, help="in a request")
    parser.add_argument("--clients", type=int, default=6, help="for each replica")
    parser.add_argument("--dimensions", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder, asked)
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
            "sleep_s": asked.sleep_ms / 1000,
            "texts": asked.texts,
            "clients": asked.clients,
            "dimensions": asked.dimensions,
            "bulk": {},
        }
        wanted = {"tiny": 1} | {f"sleeps{count}": count for count in asked.replicas}
        with (
            alone.run() as running,
            started(environment, "--num-cpus", "16", haproxy=asked.haproxy) as whole,
            serving(whole, replicas=wanted) as serve,
        ):
            own = f"http://127.0.0.1:{running.server.port}"
            url = f"http://127.0.0.1:{serve.port}"
            servers = {"emberd alone": running.server, "Ray Serve": serve}
            figures["query"] = queries(servers, "tiny")
            for count in asked.replicas:
                figures["bulk"][str(count)] = round(
                    bulk(url, f"sleeps{count}", asked.clients * count, asked.texts), 1
                )
            figures["bulk_alone"] = round(bulk(own, "sleeps1", asked.clients, asked.texts), 1)
        fewest = min(asked.replicas)
        one = figures["bulk"][str(fewest)] / fewest
        figures["of_the_sum"] = {
            str(count): round(figures["bulk"][str(count)] / (count * one), 3)
            for count in asked.replicas
        }
    asked.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(asked.out.read_text())


if __name__ == "__main__":
    main()
