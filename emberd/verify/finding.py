"""The result of a check: a verdict, what was seen, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "failed", "warning", "note", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table. A check that did not run is `skipped`, and `detail` says why.

    A `note` is not a problem, but worth knowing.
    """

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def judged(check: str, passes: object, detail: str, advice: str) -> Finding:
    """Return an `ok` finding, or a `failed` one with the advice."""
    return Finding(check, "ok", detail) if passes else Finding(check, "failed", detail, advice)
