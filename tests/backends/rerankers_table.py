"""The table of re-rankers in docs/architectures.md: how near their logits come at real sizes.

`tests/reference/check_real_rerankers.py` measures and keeps it in `real_rerankers.json`;
`scripts/architectures` writes it into the page, and `test_rerankers_table.py` reads it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import emberd

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
FOUND = Path(__file__).parents[1] / "reference" / "real_rerankers.json"
BEGIN, END = "<!-- re-rankers: written by scripts/architectures -->", "<!-- end of re-rankers -->"
WAYS = ("alone", "batches", "packed")
HEADER = (
    "re-ranker", "backend", *(f"f32, {way}" for way in WAYS),
    "bf16", "bf16, tau", "CrossEncoder's bf16", "its tau",
)  # fmt: skip


def found() -> dict[str, Any]:
    """Return what was found, by model and backend."""
    results: dict[str, Any] = json.loads(FOUND.read_text())
    return results


def rerankers() -> list[str]:
    """Return the built-in re-rankers."""
    path = Path(emberd.__file__).parent / "registry" / "catalog.yaml"
    catalog = yaml.safe_load(path.read_text())
    return [name for name, entry in catalog.items() if entry.get("kind") == "rerank"]


def rows() -> Iterator[list[str]]:
    """Yield the cells of each line below the header."""
    results = found()
    for name in rerankers():
        if name not in results:
            yield [f"`{name}`", "not measured", *("" for _ in HEADER[2:])]
        for backend, row in sorted(results.get(name, {}).items()):
            exact = [f"{row['f32'][way]:.0e}" for way in WAYS]
            both = [row.get(key, {"farthest": "", "tau": ""}) for key in ("bf16", "their_bf16")]
            rough = [str(each[key]) for each in both for key in ("farthest", "tau")]
            yield [f"`{name}`", backend, *exact, *rough]


def section() -> str:
    """Return what stands between the markers."""
    lines = [HEADER, ["---" for _ in HEADER], *rows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write() -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{section()}\n\n{END}{after}")
