"""The part of docs/performance.md on re-ranking, from a run of `reranking.py`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def section(file: Path) -> str:
    """Return the tables of a kept run, and how it was made."""
    run = json.loads(file.read_text())
    on = run["machine"]
    before, after = run["load_average"]
    rounds = len(run["all"]["theirs_f32_s"])
    packages = {**on["emberd_environment"], **run["versions"]}
    facts = (
        f"- {on['date']}, {on['processor']}, {on['cores']} cores, {on['memory_gib']:.0f} GiB,"
        f" {on['system']}, Python {on['python']};"
        f" {', '.join(f'{name} {v}' for name, v in packages.items())}.",
        f"- Load average of the machine: {before:.1f} before, {after:.1f} after (the run itself"
        f" keeps {on['cores']} busy). `{run['command']}`; medians of {rounds} rounds.",
    )
    return "\n\n".join([table(run), "\n".join(facts)])


def table(run: Mapping[str, Any]) -> str:
    """Return what was measured; what misses its goal is in bold."""
    medians, few = run["medians"], run["few"]
    missed = {goal for goal, met in run["met"].items() if not met}
    lines = [
        "| | 100 documents of 100 tokens | emberd is faster by | goal |",
        "|---|---:|---:|---:|",
        f"| emberd, {run['compute']}, over HTTP | {medians['emberd_100_s'] * 1000:.0f} ms | | |",
    ]
    for goal, (name, ratio) in zip(run["met"], run["times_faster_than"].items(), strict=False):
        times = _bold(f"{ratio:.2f} ×", goal in missed)
        batch = run["their_batch"][name]
        spent = f"{medians[f'theirs_{name}_s'] * 1000:.0f} ms"
        lines.append(
            f"| CrossEncoder, {name}, in process, batches of {batch} | {spent} | {times}"
            f" | ≥ {goal.partition(' ')[0]} × |"
        )
    p50 = _bold(f"{few['p50_ms']:.1f} ms", "p50 of 20" in missed)
    return "\n".join(
        [
            *lines,
            "",
            "| 20 documents of 100 tokens, p50 | their tokens in the engine alone | goal |",
            "|---:|---:|---:|",
            f"| {p50} | {few['engine_ms']:.1f} ms | ≤ {few['most_ms']:.1f} ms |",
        ]
    )


def _bold(text: str, missed: object) -> str:
    return f"**{text}**" if missed else text
