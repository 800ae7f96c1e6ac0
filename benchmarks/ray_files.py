"""A file of passages by `emberd embed-files`, here and on Ray, with more and more GPUs.

    python benchmarks/ray_files.py --gpus 1,2,4 --model bert-base --out FILE.json
    python benchmarks/ray_files.py --out FILE.json       a node with all of these cores

`rows_per_s` is of the whole command, with its start; `steady_rows_per_s` begins when each worker
has written a part. Last, on Ray and with the most GPUs, the command is killed when a third of the
parts is there, and run again: each row must then be there once, and no part written twice.

Weights are random. For Ray, see `ray_cluster.py`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import made
import numpy as np
from pyarrow import compute, parquet
from ray_cluster import TOKEN, started, until

from emberd.replacing import replacing

PART_ROWS = 10_000
KILLED_AT = 1 / 3
HERE, ON_RAY = "here", "on Ray"


def main() -> None:
    """Measure, and write the figures as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    numbers = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--gpus", type=numbers, default=[0], metavar="N,N,...")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", choices=made.SIZES, default="minilm")
    parser.add_argument("--compute", choices=("f32", "bf16", "f16"))
    parser.add_argument("--only", choices=(HERE, ON_RAY), help="one of the two")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.rows < (least := 2 * PART_ROWS * max(1, *asked.gpus)):
        parser.error(f"--rows: at least {least}, so that each worker has two parts to write")
    with tempfile.TemporaryDirectory(prefix="emberd-files-") as folder:
        bench = Bench(asked, Path(folder))
        for gpus in asked.gpus:
            bench.measure(gpus)
        bench.kill(max(asked.gpus))


class Bench:
    """A model, a file, and what was measured of both."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked = asked
        self.folder = folder
        self.compute = asked.compute or machine.fastest_compute(gpus=any(asked.gpus))
        self.model = made.model(asked.model, folder / "model", asked.tokenizer)
        requests = made.Requests(self.model, answers="base64", few=True)
        texts = [" ".join(each.split()) for each in requests.alike]
        self.file = folder / "passages.txt"
        with self.file.open("w") as file:  # no line is there twice
            file.writelines(f"{row} {texts[row % len(texts)]}\n" for row in range(asked.rows))
        self.figures: dict[str, Any] = {
            "machine": machine.facts(),
            "model": asked.model,
            "compute": self.compute,
            "rows": asked.rows,
            "part_rows": PART_ROWS,
            "by_gpus": {},
        }

    def home(self, gpus: int) -> Path:
        """Write a configuration whose only model has a worker for each GPU."""
        return made.home(
            self.folder / f"home-{gpus}", self.model, compute=self.compute,
            backend="mlx" if gpus else "openvino", more="replicas: auto",
        )  # fmt: skip

    def environment(self, gpus: int) -> dict[str, str]:
        """Return that of everything that may use so many GPUs."""
        devices = ",".join(map(str, range(gpus)))
        return {
            "EMBERD_HOME": str(self.home(gpus)),
            "EMBERD_TOKEN": TOKEN,
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        } | ({"CUDA_VISIBLE_DEVICES": devices} if gpus else {})

    def measure(self, gpus: int) -> None:
        """Embed the whole file, here and on Ray."""
        found: dict[str, Any] = {}
        if self.asked.only != ON_RAY:
            found[HERE] = self.timed({**os.environ, **self.environment(gpus)}, gpus)
        if self.asked.only != HERE:
            with started(self.environment(gpus), *room(gpus)) as environment:
                found[ON_RAY] = self.timed(environment, gpus, "--ray", "auto")
        self.figures["by_gpus"][str(gpus)] = found
        self.write()

    def timed(self, environment: dict[str, str], gpus: int, *more: str) -> dict[str, float]:
        """Run the command once, and return how fast it was."""
        out = self.folder / "vectors"
        began_s = time.monotonic()
        subprocess.run(
            self.command(out, *more), env=environment, check=True, stdout=subprocess.DEVNULL
        )
        spent_s = time.monotonic() - began_s
        written_s = sorted(part.stat().st_mtime for part in out.glob("*.parquet"))
        first = max(1, gpus) - 1  # each worker has written a part by then
        parts = len(written_s) - 1 - first
        steady_s = written_s[-1] - written_s[first]
        shutil.rmtree(out)
        return {
            "spent_s": round(spent_s, 1),
            "rows_per_s": round(self.asked.rows / spent_s, 1),
            "steady_rows_per_s": round(parts * PART_ROWS / steady_s, 1),
        }

    def command(self, out: Path, *more: str) -> list[str]:
        """Return the command that embeds the file."""
        embed = ["embed-files", str(self.file), "--out", str(out), "--part-rows", str(PART_ROWS)]
        return [sys.executable, "-m", "emberd", *embed, *more]

    def kill(self, gpus: int) -> None:
        """Kill the command on Ray midway, go on with it, and look at what is there."""
        if self.asked.only == HERE:
            return
        out = self.folder / "killed"
        goal = int(KILLED_AT * self.asked.rows / PART_ROWS)
        with started(self.environment(gpus), *room(gpus)) as environment:
            command = self.command(out, "--ray", "auto")
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            began_s = time.monotonic()
            until(lambda: len(list(out.glob("*.parquet"))) >= goal, within_s=3600)
            process.kill()
            process.wait()
            killed_after_s = time.monotonic() - began_s
            time.sleep(5)  # what the workers had begun ends with them
            before = {part: part.stat().st_mtime_ns for part in out.glob("*.parquet")}
            began_s = time.monotonic()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            rest_s = time.monotonic() - began_s
        rewritten = sum(part.stat().st_mtime_ns != at for part, at in before.items())
        self.figures["killed"] = {
            "gpus": gpus,
            "after_s": round(killed_after_s, 1),
            "parts_then": len(before),
            "rest_s": round(rest_s, 1),
            "parts": len(list(out.glob("*.parquet"))),
            "parts_rewritten": rewritten,
            **looked_through(sorted(out.glob("*.parquet"))),
        }
        self.write()

    def write(self) -> None:
        """Keep what there is of the figures, and say it."""
        print(
            json.dumps(self.figures["by_gpus"] | {"killed": self.figures.get("killed")}), flush=True
        )
        with replacing(self.asked.out, mode=0o644, sync=False) as file:
            file.write(json.dumps(self.figures, indent=1).encode() + b"\n")


def room(gpus: int) -> list[str]:
    """Return what Ray's node is said to have."""
    return ["--num-gpus", str(gpus)] if gpus else []


def looked_through(parts: Sequence[Path]) -> dict[str, Any]:
    """Count the rows and the different texts of these parts, and how far a vector is from unit."""
    rows, texts, off = 0, set(), 0.0
    for part in parts:
        table = parquet.read_table(part)
        rows += table.num_rows
        texts |= {text.partition(" ")[0] for text in table["text"].to_pylist()}  # its number
        vectors = compute.list_flatten(table["embedding"]).to_numpy().reshape(table.num_rows, -1)
        off = max(off, float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max()))
    return {"rows": rows, "different": len(texts), "furthest_from_unit": off}


if __name__ == "__main__":
    main()
