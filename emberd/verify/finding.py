"""What a check found: a verdict, what was seen, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "failed", "warning", "note", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table. A check that did not run is `skipped`, and `detail` says why.

    A `note` is nothing wrong, but worth knowing.
    """

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def judged(check: str, passes: object, detail: str, advice: str) -> Finding:
    """Return `ok`, or `failed` with the advice."""
    return Finding(check, "ok", detail) if passes else Finding(check, "failed", detail, advice)
