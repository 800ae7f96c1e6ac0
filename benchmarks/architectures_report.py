"""The part of docs/performance.md on architectures: a table for each machine that was measured.

Each committed `results/architectures-*.json` gives one.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders import LLAMA, TORCH

RUNS = "architectures-*.json"
NOT_YET = "No run has been committed yet: `scripts/bench --architectures --json OUT` makes one."
LEAST_SHARE = 0.7
SMALL, SMALL_TIMES = 512, {"bf16": 2.5, "f32": 1.3}  # hidden size, times torch in float32
LLAMA_COMPUTES = ("f16", "f32")
NAMES = {"passages": "passages", "long": "long texts"}


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one model with one kind of texts; `fastest` is emberd's arithmetic."""

    name: str
    kind: str
    model: Mapping[str, Any]
    fastest: str

    @property
    def numbers(self) -> Mapping[str, Any]:
        """The numbers of these texts."""
        found: Mapping[str, Any] = self.model["kinds"][self.kind]
        return found

    def speed(self, who: str) -> float | None:
        """Return the median of tokens a second; None if they did not take part."""
        rounds = self.numbers["tokens_per_s"].get(who)
        return float(statistics.median(rounds)) if rounds else None

    def times(self, who: str, other: str) -> float | None:
        """Return the median of the rounds' ratios."""
        speeds = self.numbers["tokens_per_s"]
        if who not in speeds or other not in speeds:
            return None
        return float(
            statistics.median(a / b for a, b in zip(speeds[who], speeds[other], strict=True))
        )

    def times_llama(self, who: str, *computes: str) -> float | None:
        """Return the ratio to llama.cpp in the arithmetic in which it is fastest."""
        found = [self.times(who, f"{LLAMA}, {compute}") for compute in computes]
        return min((ratio for ratio in found if ratio is not None), default=None)

    def share(self, compute: str) -> float | None:
        """Return the part of the best product that emberd reaches in this arithmetic."""
        best = self.numbers["best_gflop_per_s"].get(compute)
        speeds = self.numbers["tokens_per_s"].get(f"emberd, {compute}")
        if not best or not speeds:
            return None
        each = self.numbers["gflop_per_token"]
        return float(statistics.median(s * each / b for s, b in zip(speeds, best, strict=True)))

    @property
    def least_times(self) -> float:
        """How many times as fast as torch in float32 emberd wants to be."""
        return SMALL_TIMES[self.fastest] if self.model["hidden_size"] <= SMALL else 1.0

    def cells(self) -> list[str]:
        """Return the cells of its row; bold is what misses a goal."""
        size = f"{self.model['layers']} layers of {self.model['hidden_size']}"
        if self.model["layers"] < self.model["of_layers"]:
            size = f"{self.model['layers']} of {self.model['of_layers']}{size[size.index(' ') :]}"
        own, beside = f"emberd, {self.fastest}", [f"{TORCH}, bf16", f"{TORCH}, f32"]
        cells = [
            f"{self.name}, {NAMES[self.kind]}",
            f"{self.model['like']}, {size}",
            _number(self.speed(own)),
            _written(self.share(self.fastest), "{:.0%}", LEAST_SHARE),
            _written(self.times(own, beside[0]), "{:.1f} ×", 1.0),
            _written(self.times(own, beside[1]), "{:.1f} ×", self.least_times),
            _written(self.times_llama(own, *LLAMA_COMPUTES), "{:.1f} ×", 1.0),
        ]
        if self.fastest != "f32":
            cells += [
                _number(self.speed("emberd, f32")),
                _written(self.share("f32"), "{:.0%}"),
                _written(self.times("emberd, f32", beside[1]), "{:.1f} ×"),
                _written(self.times_llama("emberd, f32", "f32"), "{:.1f} ×"),
            ]
        return cells


def read(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return all committed runs by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob(RUNS))}


def lines_of(results: Mapping[str, Any]) -> Iterator[Line]:
    """Yield a line for each model and kind of texts."""
    for name, model in results["models"].items():
        for kind, numbers in model["kinds"].items():
            if numbers["tokens_per_s"]:
                yield Line(name, kind, model, results["compute"])


def section(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return everything about these runs."""
    parts = []
    for results in runs.values():
        facts = "\n".join(f"- {fact}" for fact in facts_of(results))
        parts.append(f"{table(results)}\n\n{facts}")
    return "\n\n".join(parts) or NOT_YET


def table(results: Mapping[str, Any]) -> str:
    """Return the table of a run: tokens a second, and how they compare."""
    fastest = results["compute"]
    head = ["", "like", f"{fastest}, tokens/s", "of the best product", "torch bf16", "torch f32"]
    head += [LLAMA]
    if fastest != "f32":
        head += ["f32, tokens/s", "of the best product", "torch f32", f"{LLAMA} f32"]
    rows = [line.cells() for line in lines_of(results)]
    return "\n".join(map(_row, [head, ["---", "---"] + ["---:"] * (len(head) - 2), *rows]))


def facts_of(results: Mapping[str, Any]) -> list[str]:
    """Return how a run was made."""
    on = results["machine"]
    versions = [*on["emberd_environment"].items()]
    versions += [pair for packages in results["versions"].values() for pair in packages.items()]
    tokens = {NAMES[line.kind]: f"{line.numbers['mean_tokens']:.0f}" for line in lines_of(results)}
    rounds = [
        len(each) for line in lines_of(results) for each in line.numbers["tokens_per_s"].values()
    ]
    loads = [run["load_average_before"] for run in results["runs"]]
    cosines = {
        who: min(
            model["check"][who] for model in results["models"].values() if who in model["check"]
        )
        for who in dict.fromkeys(
            who for model in results["models"].values() for who in model["check"]
        )
    }
    return [
        f"{on['date']}, {on['processor']}, {on['processors']} processors, {on['system']}, Python"
        f" {on['python']}; medians of {min(rounds)} to {max(rounds)} rounds; {results['threads']}"
        f" threads for all; load average before the runs {min(loads):.1f} to {max(loads):.1f}.",
        f"Tokens a text on average: {', '.join(f'{k} {n}' for k, n in tokens.items())}.",
        f"{', '.join(f'{package} {version}' for package, version in versions)}.",
        "Lowest cosine to torch in float32, or else to emberd's:"
        f" {'; '.join(f'{who} {cosine:.6f}' for who, cosine in cosines.items())}.",
        *(f"Missing: {who} ({why})." for who, why in results["missing"].items()),
        *(
            f"{name} without {who}: {why}."
            for name, model in results["models"].items()
            for who, why in model["missing"].items()
        ),
        *(f"`{run}`" for run in dict.fromkeys(each["command"] for each in results["runs"])),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _written(value: float | None, write: str, at_least: float = 0.0) -> str:
    if value is None:
        return ""
    text = write.format(value)
    return f"**{text}**" if value < at_least else text


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
