"""`scripts/bench --cores`: emberd on so many cores, really run, on few texts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scaling

from tests.serving import wait_for

RUN = str(Path(scaling.__file__))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are pinned"),
]


def measured(target: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, RUN, "--cores", "1,2", "--quick", "--json", str(target), *more]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def test_every_column_has_emberd_its_engine_and_the_clients_alone(tmp_path: Path) -> None:
    results = measured(tmp_path / "scaling.json")

    assert list(results["columns"]) == ["1 core", "2 cores"]
    for column in results["columns"].values():
        found = {who: of.keys() for who, of in column["numbers"].items()}
        assert found["emberd"] >= {
            "first_ms", "bulk_texts_per_s", "bulk_workers_cores", "bulk_client_cores",
            "clients_texts_per_s", "lengths_tokens_per_s", "query_p50_ms",
        }  # fmt: skip
        assert found["engine"] >= {"best_tokens_per_s", "tokenizer_tokens_per_s", "query_p50_ms"}
        assert found["the clients alone"] == {"bulk_texts_per_s", "clients_texts_per_s"}
    assert results["check"]["emberd"]["cosine"]["lowest"] > 0.999
    peer = "sentence-transformers"
    assert peer in results["missing"] or any(peer in name for name in results["check"])


def test_rounds_can_be_added(tmp_path: Path) -> None:
    target = tmp_path / "scaling.json"
    measured(target, "--sections", "query")

    results = measured(target, "--sections", "query", "--add")

    assert len(results["runs"]) == 2
    for column in results["columns"].values():
        assert len(column["numbers"]["emberd"]["query_p50_ms"]["rounds"]) == 2


def test_a_run_that_is_ended_leaves_what_it_has_measured(tmp_path: Path) -> None:
    target = tmp_path / "scaling.json"
    asked = ["--cores", "1", "--quick", "--sections", "query,engine", "--json", str(target)]
    with subprocess.Popen([sys.executable, RUN, *asked]) as process:
        wait_for(target.exists, within_s=300)
        process.terminate()

    results = json.loads(target.read_text())
    assert results["columns"]["1 core"]["numbers"].keys() == {"emberd"}
    assert results["runs"][0]["rounds"] == 0
