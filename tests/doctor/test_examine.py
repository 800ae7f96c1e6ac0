"""All checks run in parallel, within a time limit."""

import threading
from collections.abc import Mapping

from emberd.doctor.examine import examine
from emberd.verify.finding import Finding


def test_a_check_that_hangs_or_breaks_hides_no_other() -> None:
    released = threading.Event()

    def hangs() -> list[Finding]:
        released.wait()
        return []

    def breaks() -> list[Finding]:
        raise ZeroDivisionError("by zero")

    def works() -> list[Finding]:
        return [Finding("works", "ok", "fine")]

    found = examine({"hangs": hangs, "breaks": breaks, "works": works}, limit_s=0.5)
    released.set()

    shown: Mapping[str, str] = {finding.check: finding.verdict for finding in found}
    assert shown == {"hangs": "failed", "breaks": "failed", "works": "ok"}
    assert "no answer within 0.5 s" in found[0].detail
    assert "by zero" in found[1].detail
