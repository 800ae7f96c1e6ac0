"""Runs all checks in parallel, within a time limit, so that nothing on this machine can hang it."""

import queue
import threading
import time
from collections.abc import Callable, Mapping

from emberd.verify.finding import Finding

LIMIT_S = 20.0  # for all together

Check = Callable[[], list[Finding]]


def examine(checks: Mapping[str, Check], *, limit_s: float = LIMIT_S) -> list[Finding]:
    """Return what the checks found, in their order. One that hangs or fails is itself a finding.

    The threads are daemons, so that one hanging in the system (a dead network disk) ends with us.
    """
    answers: queue.SimpleQueue[tuple[str, list[Finding]]] = queue.SimpleQueue()

    def answer(name: str, check: Check) -> None:
        try:
            found = check()
        except Exception as error:  # noqa: BLE001 - a check that broke must not hide the others
            what = f"this check itself failed: {type(error).__name__}: {error}"
            found = [Finding(name, "failed", what, "Please report it; it is a bug in emberd.")]
        answers.put((name, found))

    for name, check in checks.items():
        threading.Thread(target=answer, args=(name, check), daemon=True).start()
    until_s = time.monotonic() + limit_s
    found: dict[str, list[Finding]] = {}
    while len(found) < len(checks):
        try:
            name, findings = answers.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            break
        found[name] = findings
    late = f"no answer within {limit_s:g} s"
    return [
        finding
        for name in checks
        for finding in found.get(
            name,
            [
                Finding(
                    name,
                    "failed",
                    late,
                    "Something it uses hangs, such as a disk, a driver or the network.",
                )
            ],
        )
    ]
