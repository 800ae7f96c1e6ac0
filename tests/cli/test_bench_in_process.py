"""`emberd bench`: which server is measured, and what is shown of the numbers."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from emberd.bench import stages
from emberd.bench.client import Server
from emberd.bench.stages import Pace, Results, Say
from emberd.cli.bench import _end
from tests.answering import Answering, answering
from tests.in_process import run_here

ROWS = [{"words": 8.0, "texts_per_s": 1234.5}]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Take back the handler that the command sets."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Server, int | None, Pace]]:
    """What was to be measured; the numbers are always the same."""
    asked: list[tuple[Server, int | None, Pace]] = []

    def bench(server: Server, pid: int | None, say: Say, *, pace: Pace) -> Results:
        asked.append((server, pid, pace))
        say("one client")
        return Results("http://x", "m", {"first_ms": 12.345}, ROWS)

    monkeypatch.setattr(stages, "bench", bench)
    return asked


@pytest.fixture(scope="module")
def other() -> Iterator[Answering]:
    with answering({"/embed": (200, {"embeddings": [[1.0]]})}) as server:
        yield server


def test_a_server_that_runs_is_measured_at_its_address(
    other: Answering, measured: list[tuple[Server, int | None, Pace]], tmp_path: Path
) -> None:
    options = ("--against", other.url, "--model", "mine", "--seconds", "0.5", "--json")

    results = json.loads(run_here(tmp_path, "bench", *options).out)

    assert results["numbers"] == {"first_ms": 12.345}
    ((server, pid, pace),) = measured
    assert (server.port, server.model, server.dialect) == (other.port, "mine", "native")
    assert (pid, pace.stage_s) == (os.getpid(), 0.5)


@pytest.mark.usefixtures("measured")
def test_a_person_sees_the_stages_and_a_table(other: Answering, tmp_path: Path) -> None:
    piped = run_here(tmp_path, "bench", "--against", other.url)
    shown = run_here(tmp_path, "bench", "--against", other.url, typed="")

    assert (piped.code, shown.code, piped.err) == (0, 0, "")
    for out in (piped.out, shown.out):
        assert "12.3 ms" in out
        assert "1234.5" in out
    assert "measuring one client" in shown.out


def test_a_signal_ends_it_as_an_exception_would() -> None:
    with pytest.raises(SystemExit) as ended:
        _end(signal.SIGTERM, None)

    assert ended.value.code == 128 + signal.SIGTERM
