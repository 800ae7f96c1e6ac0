"""Every architecture that emberd runs, beside transformers and the machine's best products.

    scripts/bench --architectures [--only bert,gte] [--rounds 3] [--seconds 2] [--json OUT]
    python benchmarks/architectures.py --here ...    on a machine where scripts/setup cannot run

Each model has its real sizes and random weights (see `encoders.py`), so that no download is needed.
All who take part have the same texts and threads, and take turns round after round: emberd's engine
in a process without a server, transformers in torch, llama.cpp where it has the architecture, and
products of the shapes that the model's layers have. Tokenizing is left out for all. Each uses the
batch size that was fastest for it at first. The results are written after every architecture.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checks
import encoders
import environments
import machine
import made
import servers
import turns
from encoders import LLAMA, MODELS, TORCH, Made, Model
from placement import available
from turns import Pipe

from emberd.bench.texts import BLOCK, mixed_lengths
from emberd.replacing import replacing

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEERS = {  # environment, packages, what must be importable, the program
    TORCH: (
        "sentence-transformers", ("transformers", "torch"), "torch, transformers",
        "transformers_in_process.py",
    ),
    LLAMA: (
        "llama-cpp", ("llama-cpp-python", "gguf"), "gguf, llama_cpp, safetensors",
        "llama_cpp_in_process.py",
    ),
}  # fmt: skip
DTYPES = {  # llama.cpp is no faster in bf16 than in f16 where it was measured, see decision 45
    TORCH: {"bf16": "bfloat16", "f32": "float32"},
    LLAMA: {"f16": "f16", "f32": "f32"},
}
MEAN_TOKENS = 99  # of the passages
PASSAGES, LONG_TEXTS = 25, 2
BATCH_TOKENS = {"passages": (64, 256, 512), "long": (2048,)}  # 64: a worker's, of a slow model
BATCH_TEXTS = {"passages": (1, 8, PASSAGES), "long": (1,)}
STATIC_TIMES = 16  # as many texts for static models, which take so little time
STATIC_TOKENS = {"passages": (512, 2048, 8192), "long": (2048, 8192)}
STATIC_TEXTS = {"passages": (32, STATIC_TIMES * PASSAGES), "long": (1, STATIC_TIMES * LONG_TEXTS)}
PRODUCT_ROWS = ((0, 512), (1, 1024), (1, 4096))  # streams and rows; 0: one for each thread
CHECKED = 4  # every so many texts
LEAST_COSINE_IN_BF16 = 0.999
LEAST_COSINE_OF_LLAMA = 0.999  # in float32, too: attention is in float16, GELU approximate


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results as they come."""
    asked = _arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that all processes end, too
    run = Run(asked)
    run.measure()
    print(f"wrote {asked.json}" if asked.json else json.dumps(run.results, indent=1), flush=True)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--architectures", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(MODELS),
        metavar="NAME,...", help=f"only these of {', '.join(MODELS)}",
    )  # fmt: skip
    parser.add_argument("--kinds", default="passages,long", help="which texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--minutes", type=float, help="begin no architecture that would end after")
    parser.add_argument("--threads", type=int, default=len(available()))
    parser.add_argument("--here", action="store_true", help="make no environments for peers")
    parser.add_argument("--peer-path", default="", help="PYTHONPATH for peers in this Python")
    parser.add_argument(
        "--quick", action="store_true", help="one layer of each kind: does it run at all?"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the results go")
    parser.add_argument(
        "--add", action="store_true", help="keep what OUT has, measure what it has not"
    )
    asked = parser.parse_args(arguments)
    if unknown := set(asked.only) - set(MODELS):
        parser.error(f"no such architecture: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if asked.quick:
        asked.here, asked.rounds, asked.seconds = True, 1, 0.05
    return asked


def texts_of(kind: str, model: Model) -> list[str]:
    """Return passages of mixed lengths, about 99 tokens on average, or long texts."""
    times = 1 if model.layers else STATIC_TIMES
    if kind == "long":
        return encoders.texts([model.longest] * LONG_TEXTS * times)
    lengths = mixed_lengths()[:: BLOCK // PASSAGES] * times
    grow = MEAN_TOKENS * len(lengths) / sum(lengths)
    return encoders.texts([max(3, round(length * grow)) for length in lengths])


@dataclass(slots=True)
class Turn:
    """Who takes part. `speed` is asked for texts, a batch size and seconds: tokens a second."""

    name: str
    sizes: Mapping[str, Sequence[int]]
    speed: Callable[[Sequence[str], int, float], float]
    tried: dict[str, dict[int, float]] = field(default_factory=dict)  # for each kind, by size

    def run(self, kind: str, texts: Sequence[str], seconds: float) -> float:
        """Return tokens a second, with the batch that was fastest for these texts at first."""
        if kind not in self.tried:
            speeds = {size: self.speed(texts, size, seconds / 3) for size in self.sizes[kind]}
            self.tried[kind] = {size: round(speed, 1) for size, speed in speeds.items()}
        return self.speed(texts, self.best(kind), seconds)

    def best(self, kind: str) -> int:
        """Return the size of the batch that was fastest."""
        return max(self.tried[kind], key=self.tried[kind].__getitem__)


class Best:
    """The machine's best products for the shapes of one model."""

    def __init__(self, pipe: Pipe, made: Made, asked: argparse.Namespace) -> None:
        self._pipe, self._threads, self._seconds = pipe, asked.threads, asked.seconds / 5
        self._rows = PRODUCT_ROWS[: 1 if asked.quick else None]
        self._flop: dict[tuple[int, int], float] = {}
        for inputs, outputs in made.products:
            pair = (min(inputs, outputs), max(inputs, outputs))
            self._flop[pair] = self._flop.get(pair, 0) + 2 * inputs * outputs
        self._ways: dict[tuple[str, tuple[int, int]], tuple[int, int]] = {}

    def gflop_per_s(self, compute: str) -> float | None:
        """Return how fast all products of a token would be, each at the best of its shape."""
        spent = 0.0
        for pair, flop in self._flop.items():
            way = self._ways.get((compute, pair)) or self._fastest(compute, pair)
            speed = self._speed(compute, pair, way, self._seconds)
            if not speed:
                return None
            spent += flop / speed
        return sum(self._flop.values()) / spent

    def _fastest(self, compute: str, pair: tuple[int, int]) -> tuple[int, int]:
        ways = [(streams or self._threads, rows) for streams, rows in self._rows]
        speeds = {way: self._speed(compute, pair, way, self._seconds / 3) or 0 for way in ways}
        self._ways[compute, pair] = max(speeds, key=speeds.__getitem__)
        return self._ways[compute, pair]

    def _speed(
        self, compute: str, pair: tuple[int, int], way: tuple[int, int], seconds: float
    ) -> float | None:
        streams, rows = way
        answer: float | None = self._pipe.ask(
            compute=compute, sizes=pair, rows=rows, streams=streams, seconds=seconds
        )["gflop_per_s"]
        return answer


class Run:
    """One run: the architectures, who takes part, and what has been measured."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.began_s = time.monotonic()
        self.fastest = machine.fastest_compute()
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        threads = {"OMP_NUM_THREADS": str(asked.threads)}
        self.own = {"PYTHONPATH": path.rstrip(os.pathsep)}
        self.theirs = threads | {"BENCH_THREADS": str(asked.threads), "HF_HUB_OFFLINE": "1"}
        self.theirs |= {"GGML_NO_BACKTRACE": "1"}  # its debugger would write into the answers
        self.theirs |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if asked.peer_path:
            self.theirs["PYTHONPATH"] = asked.peer_path
        self.results = self._begin()
        self.pythons = {who: python for who in PEERS if (python := self._find(who))}

    def _begin(self) -> dict[str, Any]:
        kept: dict[str, Any] = {
            "machine": machine.facts() | {"processors": len(available())},
            "threads": self.asked.threads,
            "compute": self.fastest,
            "versions": {},
            "missing": {},
            "runs": [],
            "models": {},
        }
        if self.asked.add and self.asked.json and self.asked.json.exists():
            before: dict[str, Any] = json.loads(self.asked.json.read_text())
            kept |= {key: before[key] for key in ("runs", "models")}
        run = {
            "command": f"scripts/bench --architectures --only '{','.join(self.asked.only)}'"
            f" --kinds {self.asked.kinds}"
            f" --rounds {self.asked.rounds} --seconds {self.asked.seconds:g}",
            "load_average_before": round(os.getloadavg()[0], 2),
        }
        kept["runs"].append(run)
        return kept

    def _find(self, who: str) -> str | None:
        name, packages, needs, _ = PEERS[who]
        try:
            python, self.results["versions"][who] = environments.find(
                name, packages, needs=f"import {needs}",
                here=self.asked.here, environment=servers.plain_environment() | self.theirs,
            )  # fmt: skip
        except environments.MissingError as error:
            self.results["missing"][who] = str(error)
            return None
        return python

    def measure(self) -> None:
        """Measure one architecture after the other, as long as there is time."""
        longest_s = 0.0
        for name in self.asked.only:
            if self.asked.add and name in self.results["models"]:
                continue
            began_s = time.monotonic()
            spent_s = began_s - self.began_s
            if self.asked.minutes and spent_s + longest_s > self.asked.minutes * 60:
                self._say(f"no time for {name}")
                break
            with tempfile.TemporaryDirectory(prefix="emberd-architectures-") as folder:
                model = MODELS[name].shallow() if self.asked.quick else MODELS[name]
                self._architecture(name, model, Path(folder))
            longest_s = max(longest_s, time.monotonic() - began_s)
            self.results["runs"][-1]["took_s"] = round(time.monotonic() - self.began_s)
            self._write()

    def _architecture(self, name: str, model: Model, folder: Path) -> None:
        made_ = encoders.write(model, folder / "model")
        kinds = [k for k in self.asked.kinds.split(",") if k == "passages" or model.longest]
        some = slice(2 if self.asked.quick else None)
        texts = {kind: texts_of(kind, model)[some] for kind in kinds}
        found = self.results["models"][name] = _facts(model, made_, texts)
        with ExitStack() as stack:
            pipes = self._start(stack, model, made_, folder, found["missing"])
            product = turns.piped(
                [sys.executable, str(HERE / "products.py"), str(self.asked.threads)], self.own
            )
            best = Best(stack.enter_context(product), made_, self.asked)
            self._check(name, pipes, next(iter(texts.values()))[:PASSAGES:CHECKED], found)
            everybody = [
                _turn(who, pipe, model)
                for who, pipe in pipes.items()
                if who not in found["missing"]
            ]
            for number in range(self.asked.rounds):
                self._round(everybody, best, texts, found)
                self._say(f"{name}: round {number + 1}: {_shown(found)}")

    def _start(
        self, stack: ExitStack, model: Model, made_: Made, folder: Path, missing: dict[str, str]
    ) -> dict[str, Pipe]:
        """Start all who take part, at the same time; `missing` says why somebody cannot."""
        ways: dict[str, AbstractContextManager[Pipe]] = {}
        for compute in dict.fromkeys((self.fastest, "f32")):
            home = made.home(
                folder / compute, made_.folder, compute=compute, backend="openvino",
                max_tokens=model.max_tokens,
            )  # fmt: skip
            command = [sys.executable, str(HERE / "engine.py"), str(home), made.NAME, "0"]
            ways[f"emberd, {compute}"] = turns.piped(command, self.own)
        missing |= model.lacking
        for who in (who for who in self.pythons if who not in model.lacking):
            command = [self.pythons[who], str(HERE / "peer_code" / PEERS[who][-1])]
            for compute, dtype in DTYPES[who].items():
                more = self.theirs | {"BENCH_MODEL": str(made_.folder), "BENCH_DTYPE": dtype}
                ways[f"{who}, {compute}"] = turns.piped(command, more)

        def enter(way: AbstractContextManager[Pipe]) -> Pipe | None:
            with suppress(RuntimeError):
                return stack.enter_context(way)
            return None

        with ThreadPoolExecutor(len(ways)) as threads:
            started = dict(zip(ways, threads.map(enter, ways.values()), strict=True))
        missing |= {who: "it did not start" for who, pipe in started.items() if pipe is None}
        return {who: pipe for who, pipe in started.items() if pipe is not None}

    def _check(
        self, name: str, pipes: Mapping[str, Pipe], texts: Sequence[str], found: dict[str, Any]
    ) -> None:
        """Compare all vectors with torch's in float32, or else with emberd's.

        llama.cpp takes no part with other vectors: whoever computes something else is no peer.
        """
        vectors = {}
        for who, pipe in pipes.items():
            more = {"do": "vectors"} if who.startswith("emberd") else {"batch": 1, "seconds": 0}
            vectors[who] = pipe.ask(texts=texts, vectors=True, **more)["embeddings"]
        exact = f"{TORCH}, f32" if f"{TORCH}, f32" in vectors else "emberd, f32"
        for who, each in vectors.items():
            found["check"][who] = checks.cosines(each, vectors[exact])["lowest"]
        # random weights are hard on bfloat16: nobody should lose more than torch does
        lost = 1 - found["check"].get(f"{TORCH}, bf16", LEAST_COSINE_IN_BF16)
        least = {"bf16": min(LEAST_COSINE_IN_BF16, 1 - 1.5 * lost), "f32": checks.LEAST_COSINE}
        for who, cosine in found["check"].items():
            is_llama = who.startswith(LLAMA)
            if not cosine >= (LEAST_COSINE_OF_LLAMA if is_llama else least[who.rpartition(" ")[2]]):
                self._say(f"{name}: {who} has other vectors than {exact}: cosine {cosine}")
                if is_llama:
                    found["missing"][who] = f"it has other vectors: cosine {cosine}"

    def _round(
        self, everybody: Sequence[Turn], best: Best, texts: Mapping[str, Sequence[str]],
        found: dict[str, Any],
    ) -> None:  # fmt: skip
        computes = dict.fromkeys((self.fastest, "f32"))
        for kind, some in texts.items():
            numbers = found["kinds"][kind]
            for turn in everybody:
                speed = turn.run(kind, some, self.asked.seconds)
                numbers["tokens_per_s"].setdefault(turn.name, []).append(round(speed, 1))
                numbers["batch"][turn.name] = turn.best(kind)
                numbers["tried"][turn.name] = turn.tried[kind]
            for compute in computes if found["products"] else ():
                if reached := best.gflop_per_s(compute):
                    numbers["best_gflop_per_s"].setdefault(compute, []).append(round(reached, 1))

    def _write(self) -> None:
        if self.asked.json:
            with replacing(self.asked.json, mode=0o644, sync=False) as file:
                file.write(json.dumps(self.results, indent=1).encode() + b"\n")

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began_s:5.0f} s: {what}", file=sys.stderr, flush=True)


def _turn(who: str, pipe: Pipe, model: Model) -> Turn:
    warm: set[tuple[int, int]] = set()

    def emberd(texts: Sequence[str], size: int, seconds: float) -> float:
        asked = (len(texts), size)
        answer = pipe.ask(
            do="encode", texts=texts, tokens=size, seconds=seconds, warm=asked in warm
        )
        warm.add(asked)
        return float(answer["tokens_per_s"])

    def peer(texts: Sequence[str], size: int, seconds: float) -> float:
        return float(pipe.ask(texts=texts, batch=size, seconds=seconds)["tokens_per_s"])

    if who.startswith("emberd"):
        return Turn(who, BATCH_TOKENS if model.layers else STATIC_TOKENS, emberd)
    return Turn(who, BATCH_TEXTS if model.layers else STATIC_TEXTS, peer)


def _facts(model: Model, made_: Made, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what the results say of a model, still without numbers."""
    linear = encoders.linear_flop(made_.products)
    kinds = {}
    for kind, some in texts.items():
        lengths = [len(text.split()) for text in some]
        attention = sum(map(model.attention_flop, lengths))
        kinds[kind] = {
            "texts": len(some),
            "mean_tokens": round(sum(lengths) / len(lengths), 1),
            "gflop_per_token": (linear + attention / sum(lengths)) / 1e9,
            "batch": {},
            "tried": {},
            "tokens_per_s": {},
            "best_gflop_per_s": {},
        }
    return {
        "like": model.like,
        "hidden_size": model.hidden_size,
        "layers": model.layers,
        "of_layers": model.of_layers,
        "products": len(made_.products),
        "missing": {},
        "check": {},
        "kinds": kinds,
    }


def _shown(found: Mapping[str, Any]) -> str:
    """Return the latest numbers in a few words."""
    parts = []
    for kind, numbers in found["kinds"].items():
        speeds = {who: rounds[-1] for who, rounds in numbers["tokens_per_s"].items()}
        shares = []
        for compute, rounds in numbers["best_gflop_per_s"].items():
            reached = speeds[f"emberd, {compute}"] * numbers["gflop_per_token"]
            shares.append(f"{compute} {reached / rounds[-1]:.0%}")
        said = ", ".join(f"{who} {speed:.0f}" for who, speed in speeds.items())
        parts.append(f"{kind}: {said} tokens/s; of the best product {', '.join(shares)}")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
