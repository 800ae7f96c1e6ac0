"""`scripts/bench --quick`: emberd's part of the benchmark, really run, on few texts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import report

RUN = Path(report.__file__).parent / "run.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("bench") / "quick.json"
    subprocess.run(
        [sys.executable, RUN, "--quick", "--json", target],
        check=True, timeout=300, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(target.read_text())
    return found


@pytest.mark.slow
def test_all_numbers_of_emberd_are_there(results: dict[str, Any]) -> None:
    numbers = report.Numbers(results)
    alone = [goal for goal in report.GOALS if goal.measured(numbers) is not None]

    assert {goal.label for goal in report.GOALS} - {goal.label for goal in alone} == {
        "first `/embed` after start, old server as written",
        "the same, next best peer behind HTTP",
        "passages: sentence-transformers + FastAPI",
        "passages: infinity-emb",
        "passages: fastembed in process",
        "passages: llama-cpp-python",
        "or: old server, OpenBLAS",
    }
    share = numbers.share_in_process()
    assert share and 0 < share < 1.5


@pytest.mark.slow
def test_a_table_can_be_made_of_them(results: dict[str, Any]) -> None:
    section = report.section(results, None)

    assert "| emberd |" in section
    assert "not known" in section or "known of it on this processor" in section


@pytest.mark.slow
def test_the_memory_watch_runs(tmp_path: Path) -> None:
    target = tmp_path / "memory.json"
    subprocess.run(
        [sys.executable, RUN, "--memory", "100", "--json", target],
        check=True, timeout=300, stdout=subprocess.DEVNULL,
    )  # fmt: skip

    memory = json.loads(target.read_text())
    assert [done for done, _ in memory["samples"]] == [50, 100]
    assert memory["unloaded_mib"] < memory["samples"][-1][1]
