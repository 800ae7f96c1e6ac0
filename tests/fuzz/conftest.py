"""Says at the end how many cases each target had."""

import pytest

from tests.fuzz.cases import ANSWERS, RAN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each target and the sum."""
    if RAN:
        terminalreporter.section("fuzz cases")
        for name, count in sorted(RAN.items()):
            terminalreporter.write_line(f"{count:>8,}  {name}")
        terminalreporter.write_line(f"{RAN.total():>8,}  in all")
    if ANSWERS:
        statuses = (f"{count:,} x {status}" for status, count in sorted(ANSWERS.items()))
        terminalreporter.write_line(f"answers: {', '.join(statuses)}")
