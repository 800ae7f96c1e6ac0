"""Checks before a peer is timed: correct vectors, and at least the speed it is known for.

expected.json holds, for each kind of processor that was measured carefully, what peers reach there.
A peer that runs more than 30% below that is set up wrongly or disturbed. Comparing with it would be
unfair, so the run ends. For other processors nothing is known, and the results say so; they become
known from a run on them once its results are kept:

    python benchmarks/checks.py benchmarks/results/bench-NAME.json
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine

from emberd.config.environment import cores

EXPECTED = Path(__file__).parent / "expected.json"
LEAST_COSINE = 0.9999
LEAST_SHARE = 0.7
SPEEDS = ("sentences_per_s", "query_p50_ms")


class WrongPeerError(Exception):
    """A peer does not work as it should; the message says how."""


class SlowPeerError(WrongPeerError):
    """A peer is slower than it should be, or something else was using the processor."""


def cosines(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the lowest and the mean cosine of the pairs."""
    alike = [
        _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b)) for a, b in zip(some, others, strict=True)
    ]
    return {"lowest": round(min(alike), 7), "mean": round(sum(alike) / len(alike), 7)}


def check_vectors(name: str, cosine: Mapping[str, float]) -> None:
    """Raise WrongPeerError unless the vectors are those of float32."""
    if not cosine["lowest"] >= LEAST_COSINE:  # not <, so that NaN fails too
        raise WrongPeerError(
            f"{name} does not give the vectors of sentence-transformers in float32:"
            f" lowest cosine {cosine['lowest']}, mean {cosine['mean']}."
        )


def known() -> Mapping[str, Any] | None:
    """Return this processor's entry in expected.json, if there is one."""
    entries: list[dict[str, Any]] = json.loads(EXPECTED.read_text())
    said = machine.cpu()
    facts = {**said, "processor": machine.processor(), "cores": cores()}
    flags = said.get("flags", "").split()
    for entry in entries:
        wanted = dict(entry["matches"])
        has_flag = wanted.pop("flag", None) in (None, *flags)
        if has_flag and all(facts.get(key) == value for key, value in wanted.items()):
            return entry
    return None


def entry_of(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the entry of expected.json that a run's results make: what peers reached in its check.

    Peers run in an environment of their own, which emberd does not.
    """
    on = {key: results["machine"][key] for key in ("processor", "cores")}
    return {
        "processor": f"{on['processor']}, {on['cores']} cores",
        "from": name,
        "matches": on,
        "peers": {
            peer: {number: of["check"][number] for number in SPEEDS if number in of["check"]}
            for peer, of in results["peers"].items()
            if of["versions"]
        },
    }


def main(files: Sequence[str]) -> None:
    """Add what these results say, or replace what was known of their processors."""
    entries: list[dict[str, Any]] = json.loads(EXPECTED.read_text())
    for file in map(Path, files):
        added = entry_of(json.loads(file.read_text()), file.name)
        entries = [entry for entry in entries if entry["matches"] != added["matches"]] + [added]
    EXPECTED.write_text(json.dumps(entries, indent=1) + "\n")


def check_speed(
    name: str, measured: Mapping[str, float], expected: Mapping[str, float] | None
) -> None:
    """Raise SlowPeerError if it is more than 30% below; do nothing where nothing is known."""
    for number, usual in (expected or {}).items():
        found = measured[number]
        share = usual / found if number.endswith("_ms") else found / usual
        if share < LEAST_SHARE:
            raise SlowPeerError(
                f"{name} runs at {share:.0%} of its known speed on this processor:"
                f" {number} is {found:.4g}, usually {usual:g}. Is the machine busy?"
            )


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main(sys.argv[1:])
