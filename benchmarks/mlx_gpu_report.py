"""Writes the GPU section of docs/performance.md from the committed numbers.

python benchmarks/mlx_gpu_report.py            writes it
python benchmarks/mlx_gpu_report.py --check    fails if the page does not match the numbers
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- mlx-gpu: written by benchmarks/mlx_gpu_report.py -->"
END = "<!-- end of mlx-gpu -->"

KINDS = {
    "matrix products": ("nvjet", "gemm"),
    "attention": ("sdpa",),
    "GELU": ("Erf", "Gelu"),
    "sums and layer norms": ("sum_norm", "layer_norm", "::Add,", "CUDAFunctor_add"),
    "ids in, embeddings, vectors out": ("gather", "Memcpy"),
}
"""Kernels by parts of their names; the first match counts."""


def main() -> None:
    """Write the page, or check it."""
    before = PAGE.read_text()
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    times, vectors = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("mlx_gpu", "mlx_gpu_vectors")
    )
    after = f"{head}{BEGIN}\n\n{times_section(times)}\n{vectors_section(vectors)}\n{END}{tail}"
    if sys.argv[1:] == ["--check"]:
        if before != after:
            sys.exit(f"{PAGE.name} does not match the numbers: run {Path(__file__).name}")
    else:
        PAGE.write_text(after)


def times_section(run: dict[str, Any]) -> str:
    """Return the table of times, the machine, and the profile."""
    names = list(next(iter(run["ms"].values())))
    lines = [
        row(["ms a batch, texts x tokens", *names, "mlx-embeddings / emberd", "torch / emberd"])
    ]
    lines.append(row(["---", *["---:"] * (len(names) + 2)]))
    for shape, of in run["ms"].items():
        ms = {name: of[name]["median"] for name in names}
        ratios = [f"{ms[peer] / ms['emberd']:.2f}×" for peer in ("mlx-embeddings", "torch")]
        lines.append(row([shape, *[f"{ms[name]:.2f}" for name in names], *ratios]))
    on, ahead, first = run["facts"], run["ahead_ms"], run["first_ms"]
    lowest = "; ".join(f"{name} {value:.6f}" for name, value in run["lowest_cosine"].items())
    rounds = len(run["ms"][next(iter(run["ms"]))]["emberd"]["rounds"])
    lines += [
        "",
        f"- {on['date']}, {on['gpu']}; {versions(on)}.",
        f"- Medians of {rounds} rounds, engines in turns.",
        f"- Lowest cosine to torch in float32: {lowest}\n  (4-bit weights are another space).",
        f"- 256 x 128, one batch after the other: {ahead['in turn']:.2f} ms each; with the next one"
        f" started before\n  the last is fetched (`Encoder.start`): {ahead['ahead']:.2f} ms.",
        f"- The first batch of a new shape: {first['first']:.0f} ms; the second:"
        f" {first['second']:.1f} ms.",
        f"- `{run['command']} --profile`",
        "",
        *profile_table(run["profile_us"]),
        "",
    ]
    return "\n".join(lines)


def profile_table(profiles: dict[str, dict[str, float]]) -> list[str]:
    """Return how long the GPU worked on a batch of 256 x 128, by kind of kernel."""
    sums: dict[str, dict[str, float]] = {}
    for engine, kernels in profiles.items():
        sums[engine] = dict.fromkeys([*KINDS, "the rest"], 0.0)
        for name, us in kernels.items():
            kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), None)
            sums[engine][kind or "the rest"] += us
    lines = [
        row(["µs of the GPU in 256 x 128", *profiles]),
        row(["---", *["---:"] * len(profiles)]),
    ]
    for kind in [*KINDS, "the rest"]:
        lines.append(row([kind, *[f"{sums[engine][kind]:.0f}" for engine in profiles]]))
    lines.append(row(["all", *[f"{sum(sums[engine].values()):.0f}" for engine in profiles]]))
    return lines


def vectors_section(run: dict[str, Any]) -> str:
    """Return the table of cosines."""
    lines = [
        row(["model", "weights", "compute", "lowest", "mean", "in a batch", "texts"]),
        row(["---", "---", "---", "---:", "---:", "---:", "---:"]),
    ]
    for each in run["results"]:
        cosines = [f"{each[key]:.6f}" for key in ("lowest", "mean")]
        batch = f"{min(each['batch'], each['shuffled']):.6f}"
        named = [each["model"], each["weights"], each["compute"]]
        lines.append(row([*named, *cosines, batch, str(each["texts"])]))
    on = run["facts"]
    lines += ["", f"- {on['date']}, {on['device']}; {versions(on)}."]
    lines += ["- `python benchmarks/mlx_gpu_vectors.py reference FOLDER` on a CPU, then"]
    lines += ["  `python benchmarks/mlx_gpu_vectors.py compare FOLDER` on the GPU.", ""]
    return "\n".join(lines)


def versions(on: dict[str, str]) -> str:
    """Return names and versions of packages."""
    packages = {name: v for name, v in on.items() if name not in ("date", "gpu", "device")}
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def row(cells: list[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
