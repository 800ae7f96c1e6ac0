"""Python, memory, disk and folders, judged by their numbers."""

import sys
from pathlib import Path

import pytest

from emberd.config.paths import find_homes
from emberd.config.settings import LimitsSettings
from emberd.doctor.machine import (
    LITTLE_DISK,
    LITTLE_MEMORY,
    NO_DISK,
    folders,
    judge_disk,
    judge_memory,
    memory,
)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_read_only_place_is_found_even_by_root() -> None:
    homes = find_homes({"HOME": "/nowhere", "XDG_CACHE_HOME": "/proc/1"})

    verdicts = {finding.check: finding.verdict for finding in folders(homes)}

    assert verdicts["folder, cache"] == "failed"


@pytest.mark.parametrize(
    ("free", "verdict"), [(LITTLE_MEMORY - 1, "warning"), (LITTLE_MEMORY, "ok")]
)
def test_little_memory_is_told_by_what_is_free(free: int, verdict: str) -> None:
    finding = judge_memory(free, 2**34, budget=2**33)

    assert finding.verdict == verdict
    assert bool(finding.advice) is (verdict == "warning")
    assert "of 16 GiB" in finding.detail


def test_more_memory_than_there_is_is_a_warning() -> None:
    (finding,) = memory(LimitsSettings(memory_budget=2**60))

    assert finding.verdict == "warning"
    assert "limits.memory_budget" in finding.advice


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(NO_DISK - 1, "failed"), (NO_DISK, "warning"), (LITTLE_DISK - 1, "warning"),
     (LITTLE_DISK, "ok")],
)  # fmt: skip
def test_a_full_disk_is_told_by_what_is_free(free: int, verdict: str) -> None:
    assert judge_disk("disk", Path("/"), free).verdict == verdict
