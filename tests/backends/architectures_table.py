"""The table of architectures in docs/architectures.md: how near each backend comes, per precision.

`scripts/architectures` measures and writes it, or only the rows of the architectures that it is
given; `test_architectures_table.py` reads it. At the sizes of real models it is not measured here:
`tests/reference/real_sizes.json` has what was found, and `--real-sizes` writes only that.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emberd.backends import plugins
from tests.backends import rerankers_table
from tests.backends.nearness import (
    BACKENDS,
    BITS,
    checkpoints,
    lowest_to_dequantized,
    lowest_to_transformers,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architectures.md"
REAL_SIZES = ROOT / "tests" / "reference" / "real_sizes.json"
BEGIN, END = "<!-- architectures: written by scripts/architectures -->", "<!-- end of table -->"
HEADER = (
    "architecture",
    *(f"{name}, {precision}" for name in BACKENDS for precision in ("f32", *BITS)),
    *(f"{name}, real sizes" for name in BACKENDS),
)
NOT_RUN, NOT_MEASURED = "–", "not measured"


def architectures() -> list[str]:
    """Return every architecture that one of our own backends runs."""
    return sorted(set().union(*map(plugins.architectures, BACKENDS.values())))


def measured(architecture: str, scratch: Path) -> Iterator[str]:
    """Yield the cells of the tiny checkpoints, in the order of the header."""
    for backend, found in BACKENDS.items():
        if architecture not in plugins.architectures(found):
            yield from (NOT_RUN for _ in ("f32", *BITS))
            continue
        names = checkpoints()[architecture]
        place = scratch / backend
        exact = [lowest_to_transformers(backend, name, place / name) for name in names]
        yield f"{min(exact):.6f}"
        for precision in BITS:
            quantized = [
                lowest_to_dequantized(backend, name, precision, place / precision / name)
                for name in names
            ]
            yield f"{min(quantized):.6f}"


def real_sizes() -> dict[str, Any]:
    """Return what was found at the sizes of real models, by architecture."""
    found: dict[str, Any] = json.loads(REAL_SIZES.read_text()) if REAL_SIZES.exists() else {}
    return found


def at_real_sizes(architecture: str) -> list[str]:
    """Return the cells for each backend: the lowest cosine, and up to how many tokens."""
    entry = real_sizes().get(architecture, {})
    models = [entry, *entry.get("also", {}).values()]
    cells = []
    for backend, found in BACKENDS.items():
        checked = [model[backend] for model in models if backend in model]
        if architecture not in plugins.architectures(found):
            cells.append(NOT_RUN)
        elif not checked:
            cells.append(NOT_MEASURED)
        else:
            lowest = min(each["lowest"] for each in checked)
            longest = max(max(each["lengths"]) for each in checked)
            cells.append(f"{lowest:.6f} up to {longest:,} tokens")
    return cells


def line(*cells: str) -> str:
    """Return one line of the table."""
    return f"| {' | '.join(cells)} |"


def committed() -> dict[str, list[str]]:
    """Return the cells of each row that the page has, by architecture."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    return {name.strip("`"): cells for name, *cells in rows}


def write(rows: Mapping[str, list[str]]) -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    table = [
        line(*HEADER),
        line(*("---" for _ in HEADER)),
        *(line(f"`{name}`", *rows[name]) for name in sorted(rows)),
    ]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{after}")


def main(wanted: list[str]) -> None:
    """Measure some architectures, all, or with `--real-sizes` none, and write the whole table."""
    every, rows = architectures(), committed()
    wanted = [] if wanted == ["--real-sizes"] else wanted or every
    if unknown := set(wanted) - set(every):
        raise SystemExit(f"No backend runs {', '.join(sorted(unknown))}.")
    few = len(BACKENDS) * (1 + len(BITS))
    kept = {name: rows[name][:few] for name in every if name in rows}
    for name in wanted:
        sys.stdout.write(f"{name}\n")
        with tempfile.TemporaryDirectory() as scratch:
            kept[name] = list(measured(name, Path(scratch)))
    write({name: [*cells, *at_real_sizes(name)] for name, cells in kept.items()})
    rerankers_table.write()


if __name__ == "__main__":
    main(sys.argv[1:])
