"""The committed numbers -> the table in docs/performance.md, never by hand.

python benchmarks/report.py            writes it
python benchmarks/report.py --check    fails when it is not what the numbers say
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "against_old_server.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- against-old-server: written by benchmarks/report.py -->"
END = "<!-- end of against-old-server -->"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: which number, and what it should be at most."""

    label: str
    number: str
    unit: str
    digits: int = 0
    goal: float | None = None
    more_is_better: bool = False


ROWS = (
    Row("memory, idle at start", "idle_mib", "MB", goal=60),
    Row("memory, MiniLM loaded", "loaded_mib", "MB", goal=350),
    Row("memory, after the work below", "worked_mib", "MB", goal=350),
    Row("memory, then right after unload", "unloaded_mib", "MB"),
    Row("memory, {rest_s:.0f} s after unload", "rested_mib", "MB", goal=60),
    Row("first `/embed` after start", "first_embed_s", "s", 2, goal=0.8),
    Row("first `/embed` after unload", "first_embed_after_unload_s", "s", 2, goal=0.8),
    Row("first `/embed` after that rest", "first_embed_after_rest_s", "s", 2),
    Row("start of the server to its first answer", "start_s", "s", 2),
    Row("one short text, warm, p50", "short_p50_ms", "ms", 1),
    Row("one short text, warm, p99", "short_p99_ms", "ms", 1),
    Row("32 texts of 200 words, one request", "batch_s", "s", 2),
    Row("`/health` meanwhile, p50", "busy_health_p50_ms", "ms", 1),
    Row("`/health` meanwhile, p99", "busy_health_p99_ms", "ms", 1, goal=20),
    Row("`/health` meanwhile, slowest", "busy_health_max_ms", "ms", 1),
    Row("`/health` at rest, p99", "quiet_health_p99_ms", "ms", 1),
    Row("8 clients, one short text each", "clients_requests_per_s", "/s", 0, more_is_better=True),
)


def table(results: Mapping[str, Any]) -> str:
    """Return Markdown. Bold is what misses its goal.

    Gain: how many times better the first column is than the first of the old servers.
    """
    servers: Mapping[str, Any] = results["servers"]
    names = list(servers)
    peer = next(name for name in names if not name.startswith("emberd"))
    header = [f"medians of {_rounds(servers)}", *names, "goal", "gain"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    for row in ROWS:
        medians = [servers[name][row.number]["median"] for name in names]
        cells = [_cell(row, name, median) for name, median in zip(names, medians, strict=True)]
        goal = f"≤ {row.goal:g} {row.unit}" if row.goal is not None else ""
        mine, theirs = medians[0], servers[peer][row.number]["median"]
        times = mine / theirs if row.more_is_better else theirs / mine
        label = row.label.format(rest_s=results["rest_s"])
        lines.append(_line([label, *cells, goal, f"{times:.{1 if times < 10 else 0}f}×"]))
    return "\n".join(lines)


def _rounds(servers: Mapping[str, Any]) -> str:
    most = max(len(numbers["start_s"]["rounds"]) for numbers in servers.values())
    return f"{most} rounds" if most > 1 else "one round"


def _cell(row: Row, name: str, median: float) -> str:
    text = f"{median:.{row.digits}f} {row.unit}"
    missed = row.goal is not None and name.startswith("emberd") and median > row.goal
    return f"**{text}**" if missed else text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section(results: Mapping[str, Any]) -> str:
    """Return all that stands between the markers."""
    on = results["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in on["emberd_environment"].items())
    old = ", ".join(f"{name} {v}" for name, v in results["old_environment"].items())
    alike = "; ".join(
        f"{name}: lowest {cosine['lowest']:.5f}, mean {cosine['mean']:.5f}"
        for name, cosine in results["vectors"].items()
    )
    ever = "; ".join(f"{name}: {s:.2f} s" for name, s in results["first_ever_s"].items())
    first = {key: each["median"] for key, each in next(iter(results["servers"].values())).items()}
    spawn_s = first["load_s"] - first["phase_files_s"] - first["phase_load_s"]
    text_s = first["first_embed_s"] - first["load_s"]
    return f"""{table(results)}

- {on["date"]}, {on["processor"]}, {on["cores"]} cores, {on["memory_gib"]:.0f} GiB, {on["system"]},
  Python {on["python"]}; load average before the run {results["load_average_before"]}; it took
  {results["took_s"] / 60:.0f} minutes.
- emberd: {versions}. Old server: {old}; {results["openblas"] or "no OpenBLAS"}.
- Cosine of the vectors to those of the old server as written: {alike}.
- Of the first `/embed` after start, `minilm`: {spawn_s:.2f} s for a process and its imports,
  {first["phase_files_s"]:.2f} s to find the files and see that they are the same,
  {first["phase_load_s"]:.2f} s to load the model, {text_s:.2f} s for the text.
- First answer ever, nothing kept by emberd yet: {ever}.
- Samples of `/health` in a round: {_medians(results, "busy_health_samples", 0)}.
- Cores that the client took while it was 8 clients:
  {_medians(results, "clients_client_cores", 2)}.
- `{results["command"]}`"""


def _medians(results: Mapping[str, Any], number: str, digits: int) -> str:
    servers = results["servers"].items()
    return "; ".join(f"{name}: {each[number]['median']:.{digits}f}" for name, each in servers)


def main() -> None:
    """Write the page, or compare."""
    before = PAGE.read_text()
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    after = f"{head}{BEGIN}\n\n{section(json.loads(RESULTS.read_text()))}\n\n{END}{tail}"
    if sys.argv[1:] == ["--check"]:
        if before != after:
            sys.exit(f"{PAGE.name} is not what the numbers say: python benchmarks/report.py")
    else:
        PAGE.write_text(after)


if __name__ == "__main__":
    main()
