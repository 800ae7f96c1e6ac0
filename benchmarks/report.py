"""Writes the tables and plots of docs/performance.md from the committed numbers.

python benchmarks/report.py            writes them
python benchmarks/report.py --check    fails if the tables do not match the numbers
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import architectures_report
import behind
import environments
import load_report
import rerank_report
import scaling_report
from peers import (
    EMBERD,
    EMBERD_4BIT,
    FASTEMBED,
    FASTEMBED_IN_PROCESS,
    INFINITY,
    LLAMA,
    OLD,
    OLD_AS_WRITTEN,
    SENTENCE_TRANSFORMERS,
)

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "bench.json"
OTHERS = "bench-*.json"  # kept runs of other machines, beside it
MEMORY = ROOT / "benchmarks" / "results" / "memory.json"
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
RERANK = ROOT / "benchmarks" / "results" / "rerank.json"
LOADS = ROOT / "benchmarks" / "results" / "loads.json"
MLX_GPU = ROOT / "benchmarks" / "results" / "mlx_gpu.json"
BEGIN = "<!-- {}: written by benchmarks/report.py -->"
END = "<!-- end of {} -->"
NOT_YET = (
    "No full run has been committed yet: `scripts/bench --old-server FILE.md` writes one here."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of all peers: which number, and how it is written."""

    label: str
    number: str
    unit: str
    digits: int = 0
    scale: float = 1.0


ROWS = (
    Row("first `/embed` after start", "cold_start_ms", "s", 2, 0.001),
    Row("first `/embed` after an unload", "cold_unload_ms", "s", 2, 0.001),
    Row("one short query, p50", "short_p50_ms", "ms", 1),
    Row("one short query, p99", "short_p99_ms", "ms", 1),
    Row("32 clients, one short query each", "clients_requests_per_s", "/s"),
    Row("the same, p99", "clients_p99_ms", "ms"),
    Row("mixed passages, one client", "bulk_texts_per_s", "texts/s", 1),
    Row("a query beside a long job, p99", "job_query_p99_ms", "ms"),
    Row("`/health` beside a long job, p99", "job_health_p99_ms", "ms", 1),
    Row("memory, idle", "idle_mib", "MiB"),
    Row("memory, loaded", "loaded_mib", "MiB"),
    Row("memory, after the work", "worked_mib", "MiB"),
    Row("memory, unloaded", "unloaded_mib", "MiB"),
    Row("memory, unloaded after the work", "unloaded_after_work_mib", "MiB"),
)


class Numbers:
    """The medians of a run."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results

    def of(self, peer: str, number: str) -> float | None:
        """Return a median; None if this peer did not take part."""
        numbers = self.results["peers"].get(peer, {}).get("numbers", {})
        return numbers[number]["median"] if number in numbers else None

    def engine(self, number: str) -> float | None:
        """Return a median of emberd's engine in process."""
        numbers = self.results["engine"]
        return numbers[number]["median"] if number in numbers else None

    def times(self, number: str, peer: str, *, less_is_better: bool = False) -> float | None:
        """Return how many times better emberd is than a peer."""
        mine, theirs = self.of(EMBERD, number), self.of(peer, number)
        if mine is None or theirs is None:
            return None
        return theirs / mine if less_is_better else mine / theirs

    @property
    def product(self) -> float:
        """The best matrix product in the arithmetic that emberd used, in GFLOP/s."""
        return self.engine(f"product_{self.results['compute']}_gflop_per_s") or 0.0

    def share_in_process(self) -> float | None:
        """Return the part of the best product that the engine reaches on passages."""
        reached = self.engine("bulk_gflop_per_s")
        return reached / self.product if reached is not None else None

    def share_over_http(self) -> float | None:
        """Return the same with the server in between."""
        speed, each = self.of(EMBERD, "bulk_texts_per_s"), self.engine("gflop_per_text")
        return speed * each / self.product if speed is not None and each is not None else None


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that emberd wants to reach: `at_most` or `at_least`, and its format."""

    label: str
    measured: Callable[[Numbers], float | None]
    write: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, value: float) -> bool:
        """Say whether a value reaches it."""
        if self.at_most is not None:
            return value <= self.at_most
        return self.at_least is not None and value >= self.at_least

    @property
    def wanted(self) -> str:
        """The goal in words."""
        sign, value = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{sign} {self.write.format(value)}"


def _own(number: str, scale: float = 1.0) -> Callable[[Numbers], float | None]:
    def found(numbers: Numbers) -> float | None:
        value = numbers.of(EMBERD, number)
        return None if value is None else value * scale

    return found


def _over_engine(numbers: Numbers) -> float | None:
    mine, engine = numbers.of(EMBERD, "short_p50_ms"), numbers.engine("short_p50_ms")
    return mine / engine if mine is not None and engine is not None else None


def _added(numbers: Numbers) -> float | None:
    mine, engine = numbers.of(EMBERD, "short_p50_ms"), numbers.engine("short_p50_ms")
    return mine - engine if mine is not None and engine is not None else None


def _next_best(numbers: Numbers) -> float | None:
    """Return how many times faster one query is than with the fastest peer behind HTTP."""
    behind_http = (SENTENCE_TRANSFORMERS, INFINITY, FASTEMBED, LLAMA, OLD, OLD_AS_WRITTEN)
    times = [numbers.times("short_p50_ms", peer, less_is_better=True) for peer in behind_http]
    return min((each for each in times if each is not None), default=None)


def _bulk_over(peer: str) -> Callable[[Numbers], float | None]:
    return lambda numbers: numbers.times("bulk_texts_per_s", peer)


GOALS = (
    Goal("first `/embed` after start", _own("cold_start_ms", 0.001), "{:.2f} s", at_most=0.45),
    Goal("first `/embed` after an unload", _own("cold_unload_ms", 0.001), "{:.2f} s", at_most=0.45),
    Goal(
        "first `/embed` after start, old server as written",
        lambda numbers: numbers.times("cold_start_ms", OLD_AS_WRITTEN, less_is_better=True),
        "{:.1f} × faster",
        at_least=9,
    ),
    Goal("one short query over HTTP, p50", _own("short_p50_ms"), "{:.1f} ms", at_most=5),
    Goal("the same over the engine in process", _over_engine, "{:.2f} ×", at_most=1.35),
    Goal("the same, what server and HTTP add to the engine", _added, "{:.2f} ms", at_most=0.8),
    Goal("the same, next best peer behind HTTP", _next_best, "{:.1f} × faster", at_least=1),
    Goal("passages: sentence-transformers + FastAPI", _bulk_over(SENTENCE_TRANSFORMERS),
         "{:.1f} ×", at_least=3.5),
    Goal("passages: infinity-emb", _bulk_over(INFINITY), "{:.1f} ×", at_least=3.5),
    Goal("passages: fastembed in process", _bulk_over(FASTEMBED_IN_PROCESS), "{:.1f} ×",
         at_least=2.5),
    Goal("passages: llama-cpp-python", _bulk_over(LLAMA), "{:.1f} ×", at_least=6),
    Goal("32 clients, one short query each", _own("clients_requests_per_s"), "{:.0f} /s",
         at_least=500),
    Goal("or: old server, OpenBLAS", lambda numbers: numbers.times("clients_requests_per_s", OLD),
         "{:.1f} ×", at_least=10),
    Goal("the same, p99", _own("clients_p99_ms"), "{:.0f} ms", at_most=150),
    Goal("a query beside a 2,000-text job, p99", _own("job_query_p99_ms"), "{:.0f} ms",
         at_most=120),
    Goal("what the job loses by it", _own("job_loss", 100), "{:.1f} %", at_most=15),
    Goal("`/health` beside the job, p99", _own("job_health_p99_ms"), "{:.1f} ms", at_most=10),
    Goal("share of the best matrix product, in process", lambda n: _percent(n.share_in_process()),
         "{:.0f} %", at_least=75),
    Goal("the same, over HTTP", lambda n: _percent(n.share_over_http()), "{:.0f} %", at_least=60),
    Goal("memory, idle", _own("idle_mib"), "{:.0f} MiB", at_most=60),
    Goal("memory, loaded", _own("loaded_mib"), "{:.0f} MiB", at_most=200),
    Goal("memory, after a 2,000-text job", _own("worked_mib"), "{:.0f} MiB", at_most=300),
    Goal("memory, unloaded", _own("unloaded_mib"), "{:.0f} MiB", at_most=60),
    Goal("memory, unloaded after the job", _own("unloaded_after_work_mib"), "{:.0f} MiB",
         at_most=60),
)  # fmt: skip


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def goals(runs: Sequence[Numbers]) -> str:
    """Return the table of goals, with a column for each run and missed goals in bold."""
    names = [
        f"{numbers.results['machine']['processor'].partition(',')[0]}, {numbers.results['compute']}"
        for numbers in runs
    ]
    columns = len(runs) + 1
    lines = [_line(["emberd", *names, "goal"]), _line(["---", *["---:"] * columns])]
    for goal in GOALS:
        cells = []
        for numbers in runs:
            value = goal.measured(numbers)
            text = "not measured" if value is None else goal.write.format(value)
            cells.append(text if value is None or goal.met(value) else f"**{text}**")
        lines.append(_line([goal.label, *cells, goal.wanted]))
    return "\n".join(lines)


def everybody(numbers: Numbers) -> str:
    """Return the table of all peers."""
    names = list(numbers.results["peers"])
    lines = [_line(["", *names]), _line(["---", *["---:"] * len(names)])]
    for row in ROWS:
        values = [numbers.of(name, row.number) for name in names]
        cells = [
            "" if value is None else f"{value * row.scale:.{row.digits}f} {row.unit}"
            for value in values
        ]
        if any(cells):
            lines.append(_line([row.label, *cells]))
    return "\n".join(lines)


def section(
    results: Mapping[str, Any],
    memory: Mapping[str, Any] | None,
    others: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return everything between the markers; runs on other machines show only their goals."""
    numbers = Numbers(results)
    on = results["machine"]
    own = ", ".join(f"{name} {v}" for name, v in on["emberd_environment"].items())
    versions = "; ".join(
        f"{name}: {', '.join(f'{package} {v}' for package, v in peer['versions'].items())}"
        for name, peer in results["peers"].items()
        if peer["versions"]
    )
    alike = "; ".join(
        f"{name} {peer['check']['cosine']['lowest']:.6f}"
        for name, peer in results["peers"].items()
        if "cosine" in peer["check"]
    )
    products = ", ".join(
        f"{compute} {reached:.0f}"
        for compute in ("f32", "bf16")
        if (reached := numbers.engine(f"product_{compute}_gflop_per_s")) is not None
    )
    known = results["known_speeds_of"]
    speeds = (
        f"No peer ran more than 30 % below what is known of it on this processor ({known})."
        if known
        else "What the peers usually reach on this processor is not known, so their speed was not"
        " checked against it; their vectors were."
    )
    reached = numbers.engine("bulk_gflop_per_s") or 0
    facts = (
        _circumstances(results),
        f"{own}.",
        f"{versions}. Old server: {results['openblas'] or 'no OpenBLAS'}.",
        f"emberd computes in {results['compute']} here. Best matrix product of OpenVINO, GFLOP/s:"
        f" {products}. Passages reach {reached:.0f} in process.",
        f"Of a first `/embed` after an unload, ms: {_phases(numbers)}.",
        f"Lowest cosine to sentence-transformers in float32: {alike}.",
        speeds,
        *(f"{name} failed in {why}" for name, why in results["failed"].items()),
        f"`{results['command']}`",
        *(f"Another run: {_circumstances(other)}" for other in others),
    )
    parts = [
        goals([numbers, *map(Numbers, others)]),
        everybody(numbers),
        "![texts a second on mixed passages](plots/bulk.svg)\n"
        "![milliseconds for one short query](plots/query.svg)",
        "\n".join(f"- {fact}" for fact in facts),
    ]
    if memory:
        parts.append(_memory(memory))
    return "\n\n".join(parts)


def _circumstances(results: Mapping[str, Any]) -> str:
    on = results["machine"]
    return (
        f"{on['date']}, {on['processor']}, {on['cores']} cores, {on['memory_gib']:.0f} GiB,"
        f" {on['system']}, Python {on['python']}; medians of {results['rounds']} rounds;"
        f" {results['threads']} threads; load average before the run"
        f" {results['load_average_before']}; it took {results['took_s'] / 60:.0f} minutes."
    )


def _phases(numbers: Numbers) -> str:
    found = numbers.results["peers"][EMBERD]["numbers"]
    return ", ".join(
        f"{name.removeprefix('phase_').removesuffix('_ms')} {each['median']:.0f}"
        for name, each in found.items()
        if name.startswith("phase_")
    )


def _memory(memory: Mapping[str, Any]) -> str:
    (first, first_mib), (last, last_mib) = memory["samples"][0], memory["samples"][-1]
    return (
        f"Memory over {last:,} texts of mixed lengths: idle {memory['idle_mib']:.0f} MiB, after"
        f" {first:,} texts {first_mib:.0f} MiB, at the end {last_mib:.0f} MiB, unloaded"
        f" {memory['unloaded_mib']:.0f} MiB; growth once all lengths had been seen"
        f" {memory['growth']:.1%} (goal: under 5 %). `{memory['command']}`\n\n"
        "![memory over many texts](plots/memory.svg)"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plot(results: Mapping[str, Any], memory: Mapping[str, Any] | None) -> None:
    """Draw the plots, in an environment of their own."""
    PLOTS.mkdir(exist_ok=True)
    peers = results["peers"]
    scaled = [
        plot | {"file": str(PLOTS / plot["file"])}
        for name, run in scaling_report.read(RESULTS.parent).items()
        for plot in scaling_report.plots_of(name, run)
    ]
    wanted = {
        "bars": [
            {
                "file": str(PLOTS / f"{name}.svg"),
                "title": title,
                "values": {
                    peer: peers[peer]["numbers"][number]["rounds"]
                    for peer in peers
                    if number in peers[peer]["numbers"]
                },
                "own": [EMBERD, EMBERD_4BIT],
            }
            for name, number, title in (
                (
                    "bulk",
                    "bulk_texts_per_s",
                    "mixed passages, one client: texts/s (more is better)",
                ),
                ("query", "short_p50_ms", "one short query, p50: ms (less is better)"),
            )
        ]
        + [plot for plot in scaled if "values" in plot],
        "lines": [plot for plot in scaled if "lines" in plot],
        "memory": {"file": str(PLOTS / "memory.svg"), "samples": memory["samples"]}
        if memory
        else None,
    }
    python = environments.make("plots")
    command = [str(python), str(Path(__file__).parent / "peer_code" / "plots.py")]
    subprocess.run(command, input=json.dumps(wanted).encode(), check=True)


def main(arguments: Sequence[str]) -> None:
    """Write the page and the plots, or check the page."""
    before = PAGE.read_text(encoding="utf-8")
    after = with_sections(before)
    if list(arguments) == ["--check"]:
        if before != after:
            sys.exit(f"{PAGE.name} does not match the numbers: run python benchmarks/report.py")
        return
    PAGE.write_text(after, encoding="utf-8")
    if RESULTS.exists():
        _plot(json.loads(RESULTS.read_text()), _read_memory())


def with_sections(page: str) -> str:
    """Return the page with the committed numbers between its markers."""
    own = json.loads(RESULTS.read_text()) if RESULTS.exists() else None
    others = [json.loads(file.read_text()) for file in sorted(RESULTS.parent.glob(OTHERS))]
    scaled = scaling_report.read(RESULTS.parent)
    models = architectures_report.read(RESULTS.parent)
    figures = [
        *(figure for run in [own, *others] if run for figure in behind.of_bench(run, ROWS)),
        *(figure for run in scaled.values() for figure in behind.of_scaling(run)),
        *(figure for run in models.values() for figure in behind.of_architectures(run)),
        *behind.of_gpu(json.loads(MLX_GPU.read_text())),
    ]
    bench = section(own, _read_memory(), others) if own else NOT_YET
    page = _between(page, "bench", bench)
    page = _between(page, "scaling", scaling_report.section(scaled))
    page = _between(page, "rerank", rerank_report.section(RERANK))
    page = _between(page, "loads", load_report.section(LOADS))
    page = _between(page, "architectures", architectures_report.section(models))
    return _between(page, "behind", behind.table(figures))


def _between(page: str, name: str, middle: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{middle}\n\n{end}{tail}"


def _read_memory() -> Mapping[str, Any] | None:
    if not MEMORY.exists():
        return None
    found: Mapping[str, Any] = json.loads(MEMORY.read_text())
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
