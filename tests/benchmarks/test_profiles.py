"""Where a loaded server spends its time, looked at by the real py-spy."""

import os
from pathlib import Path

import environments
import profiles
import pytest
import scaling
import scaling_report

SAMPLES = """\
thread (7): MainThread;<module> (emberd/cli/main.py:242);feed (emberd/worker/wire.py:80) 30
thread (7): MainThread;<module> (emberd/cli/main.py:242);feed (emberd/worker/wire.py:91) 30
thread (7): MainThread;<module> (emberd/cli/main.py:242) 39
thread (7): MainThread;<module> (emberd/cli/main.py:242);once (<frozen runpy>:8) 1
thread (8): inbox;run (threading.py:982) 5
thread (6);run (emberd/backends/native.py:8) 5
"""


def test_the_busiest_threads_come_first_with_the_share_of_each_function() -> None:
    idle = dict.fromkeys(range(10, 20), 0.0)

    found = profiles.busiest(SAMPLES, {8: 0.01, 9: 0.3, 7: 0.8, 6: 0.2} | idle)

    names = [thread["name"] for thread in found]
    assert names == ["MainThread", "native code's own", "native code's own", "inbox"]
    assert [thread["cores"] for thread in found] == [0.8, 0.3, 0.2, 0.01]
    assert found[0]["functions"] == {
        "feed in emberd/worker/wire.py": 0.6, "<module> in emberd/cli/main.py": 0.39,
    }  # fmt: skip
    assert found[1]["functions"] == {}
    assert found[2]["functions"] == {"run in emberd/backends/native.py": 1.0}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are pinned")
def test_a_run_looks_at_server_and_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        py_spy = profiles.sampler(here=False)
    except environments.MissingError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PATH", os.fspath(Path(py_spy).parent), prepend=os.pathsep)
    target = tmp_path / "scaling-one.json"

    scaling.main(["--cores", "1", "--quick", "--sections", "profile", "--json", str(target)])

    [results] = scaling_report.read(tmp_path).values()
    refused = results["failed"].get("profile, 1 core", "")
    if "permission" in refused.lower():
        pytest.skip(f"processes may not be looked at here: {refused}")
    assert not refused
    profile = results["columns"]["1 core"]["profile"]
    assert {*profile} == {"server", "worker"}
    seen = {function for thread in profile["worker"] for function in thread["functions"]}
    assert any("emberd/" in function for function in seen), profile
