"""The part of docs/performance.md on loading large models: memory, and first answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONG = ("peak_2048_mib", "peak_8192_mib")


def section(file: Path) -> str:
    """Return the table of a run of `memory_of_a_load.py`, with missed goals in bold."""
    run: dict[str, Any] = json.loads(file.read_text())
    names = [
        "model", "backend", "arithmetic", "weights", "goal", "first load", "load after an unload",
        "32 texts of 100 words", "one of 2,048 tokens", "one of 8,192", "first answer", "goal",
        "its processor time", "load average",
    ]  # fmt: skip
    lines = [_line(names), _line(["---", "---", "---", *["---:"] * (len(names) - 3)])]
    lines += [line_of(row) for row in run["rows"]]
    on = run["machine"]
    facts = (
        f"- {on['date']}, {on['processor']}, {on['cores']} cores, {on['memory_gib']:.0f} GiB,"
        f" {on['system']}, Python {on['python']};"
        f" {', '.join(f'{name} {v}' for name, v in on['emberd_environment'].items())}.",
        *(f"- `{command}`" for command in run["commands"]),
    )
    return "\n".join(lines) + "\n\n" + "\n".join(facts)


def most_mib(weights_mib: float) -> float:
    """Return the goal for a worker's memory."""
    return 1.3 * weights_mib + 300


def most_s(weights_mib: float) -> float:
    """Return the goal for a first answer after an unload: the weights at 2 GB a second."""
    return 1 + weights_mib * 2**20 / 2e9


def line_of(row: Mapping[str, Any]) -> str:
    """Return the line of a model, with what misses its goal in bold."""
    memory, answer = most_mib(row["weights_mib"]), most_s(row["weights_mib"])
    peaks = ("first_peak_mib", "again_peak_mib", "job_peak_mib", *LONG)
    cells = [
        row["model"], row["backend"], row["compute"],
        f"{row['weights_mib']:,.0f} MiB",
        f"≤ {memory:,.0f} MiB",
        *(_cell(row.get(peak), memory, "{:,.0f} MiB") for peak in peaks),
        _cell(row.get("again_s"), answer, "{:.2f} s"),
        f"≤ {answer:.2f} s",
        f"{row['again_cpu_s']:.2f} s" if "again_cpu_s" in row else "",
        f"{row['again_load']:.1f}" if "again_load" in row else "",
    ]  # fmt: skip
    return _line(cells)


def _cell(value: float | None, most: float, form: str) -> str:
    if value is None:
        return ""
    text = form.format(value)
    return text if value <= most else f"**{text}**"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
