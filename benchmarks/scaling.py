"""emberd on more and more cores, or GPUs: over HTTP, beside its own engine and its peers.

    scripts/bench --cores 2,4,8,16 [--rounds 2] [--seconds 6] [--json OUT]
    scripts/bench --gpus 1,2 --model bert-base
    python benchmarks/scaling.py ...       the same, on a machine where scripts/setup cannot run

Servers and peers are pinned to so many processors, and the clients to others if there are any. The
model has random weights of a real one's sizes, so that no download is needed; peers run in the
environments of `scripts/bench`, or, with `--here`, in the running Python. The results name those
that are missing. Columns and all who are in them take turns, round after round.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import checks
import columns
import environments
import machine
import made
import peers
import profiles
import servers
from columns import Column, InProcess
from made import Requests
from placement import available, place, siblings

from emberd.bench.client import Connection
from emberd.bench.measure import Numbers
from emberd.bench.texts import Texts
from emberd.replacing import replacing

HERE = Path(__file__).parent
ENGINE, CEILING, PEERS = "engine", "ceiling", "peers"
SECTIONS = (*columns.HTTP, ENGINE, CEILING, PEERS)
EMBERD, CLIENTS = "emberd", "the clients alone"
EXACT = "sentence-transformers, f32"
CHECKED_TEXTS = 32
LEAST_COSINE = 0.9999  # to float32, of what computes in float32
LEAST_IN_16_BITS, LEAST_OF_PEERS_IN_16_BITS = 0.999, 0.99  # random weights are hard on bf16
DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
QUERY_SEED = 5
SERVED = ("backend", "compute", "replicas", "devices")  # of a row of /models, where it has them


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results as they come."""
    asked = _arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that all servers end, too
    with tempfile.TemporaryDirectory(prefix="emberd-scaling-") as folder:
        run = Run(asked, Path(folder))
        try:
            run.check()
        except checks.WrongPeerError as error:
            sys.exit(f"stopped: {error}")
        run.rounds()
    print(f"wrote {asked.json}" if asked.json else json.dumps(run.results, indent=1), flush=True)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cores", type=_numbers, default=[], metavar="N,N,...")
    parser.add_argument("--gpus", type=_numbers, default=[], metavar="N,N,...")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="begin no round that would end after this")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument(
        "--sections", type=lambda text: text.split(","), default=SECTIONS,
        metavar="NAME,...",
        help=f"only these of {', '.join(SECTIONS)}; {profiles.SECTION}: where the time goes",
    )  # fmt: skip
    parser.add_argument("--model", choices=made.SIZES, default="minilm")
    parser.add_argument(
        "--compute", choices=("f32", "bf16", "f16"), help="by default the fastest here"
    )
    parser.add_argument("--answers", choices=("base64", "raw", "float"), default="base64")
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json (default: MiniLM's)"
    )
    parser.add_argument(
        "--entry", default="", help="more keys of the model's entry, as YAML: 'replicas: 2'"
    )
    parser.add_argument("--here", action="store_true", help="make no environments for peers")
    parser.add_argument("--peer-path", default="", help="PYTHONPATH for peers in this Python")
    parser.add_argument("--quick", action="store_true", help="few texts: does it work at all?")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the results go")
    parser.add_argument("--add", action="store_true", help="add rounds to those in OUT")
    asked = parser.parse_args(arguments)
    if not (asked.cores or asked.gpus):
        parser.error("say --cores or --gpus, such as --cores 2,4,8")
    known = (*SECTIONS, profiles.SECTION)
    if unknown := set(asked.sections) - {*known}:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(known)}")
    if asked.quick:
        asked.here, asked.rounds, asked.seconds = True, 1, 0.4
    return asked


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


class Run:
    """One run: its columns, who takes part, and what has been measured."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.asked = asked
        self.began_s = time.monotonic()
        self.compute = asked.compute or machine.fastest_compute(gpus=bool(asked.gpus))
        self.model = made.model(asked.model, folder / "model", asked.tokenizer)
        self.requests = Requests(self.model, answers=asked.answers, few=asked.quick)
        self.columns = self._columns(self._home(folder / "home", self.compute))
        self.exact = replace(self.columns[-1], home=self._home(folder / "exact", "f32"))
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.peers = self._peers() if PEERS in asked.sections else []
        self.answer_bytes: dict[str, int] = {}
        self.results = self._begin()

    def _home(self, folder: Path, compute: str) -> Path:
        backend = "mlx" if self.asked.gpus else "openvino"
        return made.home(
            folder, self.model, compute=compute, backend=backend, more=self.asked.entry
        )

    def _columns(self, home: Path) -> list[Column]:
        """Return a column for each number of cores, or of GPUs with all cores beside them."""
        asked, processors = self.asked, available()
        self.cores = siblings(processors)
        places = [(_plural(n, "core"), n, 0) for n in asked.cores]
        places += [(_plural(n, "GPU"), len(processors), n) for n in asked.gpus]
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        try:
            return [
                Column(
                    name=name,
                    placement=place(count, self.cores),
                    home=home,
                    requests=self.requests,
                    seconds=asked.seconds,
                    warm_s=min(10.0 if gpus else 3.0, asked.seconds * 2),
                    gpus=gpus,
                    environment={"PYTHONPATH": path.rstrip(os.pathsep)},
                )
                for name, count, gpus in places
            ]
        except ValueError as error:
            sys.exit(str(error))

    def _peers(self) -> list[InProcess]:
        """Return those that are here: sentence-transformers in two arithmetics, and fastembed."""
        name, device = "sentence-transformers", "cuda" if self.asked.gpus else "cpu"
        needs = f"import sentence_transformers, torch; torch.zeros(1, device={device!r})"
        python = self._python(name, needs)
        if python is None:
            return []
        program = str(HERE / "peer_code" / "sentence_transformers_in_process.py")
        found = [
            InProcess(
                name=f"{name}, {compute}",
                command=[python, program],
                environment={
                    **self._path(),
                    "BENCH_MODEL": str(self.model),
                    "BENCH_DEVICE": device,
                    "BENCH_DTYPE": DTYPES[compute],
                    "TRANSFORMERS_VERBOSITY": "error",  # the weights lack a pooler, as they may
                    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                },
            )
            for compute in dict.fromkeys((self.compute, "f32"))
        ]
        return found if self.asked.gpus else [*found, *self._fastembed(python)]

    def _fastembed(self, exporter: str) -> list[InProcess]:
        """Return fastembed with an ONNX file of the same weights, if it is here."""
        name, files = "fastembed", self.model.parent / "peers"
        python = self._python(name, "import fastembed")
        if python is None:
            return []
        prepare = str(HERE / "peer_code" / "prepare_model.py")
        environment = {**servers.plain_environment(), **self._path()}
        command = [exporter, prepare, str(self.model), str(files)]
        ran = subprocess.run(command, check=False, capture_output=True, env=environment)
        if ran.returncode:
            said = ran.stderr.decode().strip().splitlines()[-1]
            self.missing[name] = f"it has no ONNX file: {said}"
            return []
        program = str(HERE / "peer_code" / "fastembed_in_process.py")
        more = {**self._path(), "BENCH_MODEL": str(files / "onnx")}
        return [InProcess(name=f"{name}, f32", command=[python, program], environment=more)]

    def _path(self) -> dict[str, str]:
        return {"PYTHONPATH": self.asked.peer_path} if self.asked.peer_path else {}

    def _python(self, name: str, needs: str) -> str | None:
        """Return a Python that can run `needs`: this one or, made if need be, the peer's own."""
        environment = {**servers.plain_environment(), **self._path()}
        try:
            python, self.versions[name] = environments.find(
                name, peers.PACKAGES[name],
                needs=needs, here=self.asked.here, environment=environment,
            )  # fmt: skip
        except environments.MissingError as error:
            self.missing[name] = str(error)
            return None
        return python

    def _begin(self) -> dict[str, Any]:
        """Return the results without any numbers, or those of OUT to add to."""
        asked = self.asked
        kept = {
            "machine": machine.facts() | {
                "processors": len(available()),
                "threads_a_core": max(map(len, self.cores)),
                "gpus": gpu_names() if asked.gpus else [],
            },
            "model": {"sizes": asked.model, "weights": "random", "entry": asked.entry},
            "compute": self.compute,
            "answers": asked.answers,
            "tokens_a_text": round(self.requests.tokens_per_text(), 1),
            "served": {},
            "missing": self.missing,
            "versions": self.versions,
            "failed": {},
            "check": {},
            "runs": [],
            "columns": {},
        }  # fmt: skip
        if asked.add and asked.json and asked.json.exists():
            before: dict[str, Any] = json.loads(asked.json.read_text())
            same = ("processor", "gpus", "processors")
            if any(before["machine"][key] != kept["machine"][key] for key in same):
                sys.exit(f"{asked.json} has the numbers of another machine.")
            kept |= {key: before[key] for key in ("failed", "runs", "columns")}
        run = {
            "command": " ".join(["scripts/bench", *sys.argv[1:]]),
            "date": kept["machine"]["date"],
            "load_average_before": round(os.getloadavg()[0], 2),
        }
        kept["runs"].append(run)
        return kept

    def check(self) -> None:
        """Compare all vectors with those in float32: sentence-transformers' if that is here.

        A peer that fails is named, and left out.

        Raises:
            checks.WrongPeerError: emberd's are not the same.
        """
        texts = [*self.requests.mixed[:CHECKED_TEXTS], *self.requests.queries[:CHECKED_TEXTS]]
        column = self.columns[-1]
        found: dict[str, list[list[float]]] = {}
        for peer in self.peers:
            try:
                found[peer.name] = self._vectors_of(peer, column, texts)
            except RuntimeError as error:
                self._leave_out(peer.name, str(error))
        exact_by = EXACT if EXACT in found else "emberd, f32"
        exact = found[EXACT] if EXACT in found else self._embed(self.exact, texts)
        found[EMBERD] = self._embed(column, texts)
        for name, vectors in found.items():
            cosine = checks.cosines(vectors, exact)
            least = LEAST_COSINE
            if self.compute != "f32" and not name.endswith("f32"):
                least = LEAST_IN_16_BITS if name == EMBERD else LEAST_OF_PEERS_IN_16_BITS
            self.results["check"][name] = {"to": exact_by, "cosine": cosine, "least": least}
            self._say(f"checked {name}: {cosine}")
            if not cosine["lowest"] >= least:
                said = f"its lowest cosine to {exact_by} is {cosine['lowest']}, wanted {least}"
                if name == EMBERD:
                    raise checks.WrongPeerError(f"{name}: {said}.")
                self._leave_out(name, said)

    def _leave_out(self, name: str, why: str) -> None:
        self._say(f"{name} is left out: {why}")
        self.results["failed"][name] = why
        self.peers = [peer for peer in self.peers if peer.name != name]

    def _vectors_of(
        self, peer: InProcess, column: Column, texts: Sequence[str]
    ) -> list[list[float]]:
        with peer.started(column) as pipe:
            found: list[list[float]] = pipe.ask(texts=texts, batch=8, vectors=True)["embeddings"]
            return found

    def _embed(self, column: Column, texts: Sequence[str]) -> list[list[float]]:
        """Return emberd's vectors, and note how large answers are."""
        with columns.serving(column) as running, Connection(running.server) as connection:
            for name, each in (
                (columns.BULK, self.requests.bulk), (columns.CLIENTS, self.requests.clients)
            ):  # fmt: skip
                answer = connection.ask(each.requests[0].content.encode())
                self.answer_bytes[name] = len(answer)
            server = running.server
            vectors = server.vectors(connection.ask(server.embed(texts)))
            rows = json.loads(connection.ask(server.get("/models")))["models"]
        row = next(row for row in rows if row["name"] == made.NAME)
        self.results["served"] = {key: row[key] for key in SERVED if key in row}
        return vectors

    def rounds(self) -> None:
        """Take turns, and write what is known after each of them, should the run be ended."""
        longest_s = 0.0
        for number in range(self.asked.rounds):
            round_began_s = time.monotonic()
            spent_s = round_began_s - self.began_s
            if self.asked.minutes and spent_s + longest_s > self.asked.minutes * 60:
                self._say("no time for another round")
                break
            for column in self.columns:
                self._take(column, number)
            longest_s = max(longest_s, time.monotonic() - round_began_s)
            self._write(number + 1)

    def _take(self, column: Column, number: int) -> None:
        sections = self.asked.sections
        queries = Texts(QUERY_SEED + number)
        turns: dict[str, Callable[[], Numbers]] = {}
        if set(sections) & set(columns.HTTP):
            turns[EMBERD] = lambda: columns.over_http(column, sections, queries)
        if ENGINE in sections and column.gpus < 2:  # it is one process, which has one GPU
            turns[ENGINE] = lambda: columns.engine(column)
        if CEILING in sections and number == 0:
            turns[CLIENTS] = lambda: columns.ceiling(column, self.answer_bytes)
        turns |= {peer.name: partial(peer.run, column) for peer in self.peers}
        for who, measure in turns.items():
            try:
                numbers = measure()
            except RuntimeError as error:
                if who in (EMBERD, ENGINE):
                    raise
                self.results["failed"][f"{who}, {column.name}"] = str(error)
                self._say(f"{column.name}: {who} FAILED: {error}")
            else:
                self._keep(column, who, numbers)
                shown = {key: round(each, 1) for key, each in numbers.items() if "per_s" in key}
                self._say(f"{column.name}: {who} {shown}")
            self._write(number)
        if profiles.SECTION in sections and number == 0:
            self._profile(column)

    def _profile(self, column: Column) -> None:
        try:
            found = profiles.profile(column, profiles.sampler(here=self.asked.here))
        except environments.MissingError as error:
            self.missing[profiles.SECTION] = str(error)
            self._say(f"no profile: {error}")
        except profiles.ProfileError as error:
            self.results["failed"][f"{profiles.SECTION}, {column.name}"] = str(error)
            self._say(f"{column.name}: no profile: {error}")
        else:
            self._keep(column, EMBERD, Numbers())[profiles.SECTION] = found

    def _keep(self, column: Column, who: str, numbers: Numbers) -> dict[str, Any]:
        facts = column.placement.facts() | {
            "gpus": column.gpus, "client_processes": column.client_processes,
        }  # fmt: skip
        kept: dict[str, Any] = self.results["columns"].setdefault(column.name, {"numbers": {}})
        kept |= facts
        of = kept["numbers"].setdefault(who, {})
        for name, value in numbers.items():
            rounds = [*of.get(name, {"rounds": []})["rounds"], round(value, 4)]
            of[name] = {"median": round(statistics.median(rounds), 4), "rounds": rounds}
        return kept

    def _write(self, rounds: int) -> None:
        took_s = round(time.monotonic() - self.began_s)
        self.results["runs"][-1] |= {"rounds": rounds, "took_s": took_s}
        if self.asked.json:
            with replacing(self.asked.json, mode=0o644, sync=False) as file:
                file.write(json.dumps(self.results, indent=1).encode() + b"\n")

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began_s:5.0f} s: {what}", file=sys.stderr, flush=True)


def gpu_names() -> list[str]:
    """Return the names of this machine's NVIDIA GPUs."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return ran.stdout.splitlines()


if __name__ == "__main__":
    main()
