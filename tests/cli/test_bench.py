"""`emberd bench`, with a tiny model and real servers."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from emberd.backends.tiny_bert import TINY_DIMENSIONS, tiny_bert
from tests.serving import Server, clean_environ, run_emberd, wait_for

OWN = {
    "start_ms", "first_ever_ms", "cold_ms", "short_p50_ms", "short_p99_ms",
    "clients_requests_per_s", "clients_p99_ms", "job_query_p99_ms", "job_health_p99_ms",
    "used_cores", "machine_cores", "idle_mib", "loaded_mib", "worked_mib", "unloaded_mib",
}  # fmt: skip


def configure(home: Path) -> None:
    """Write a config whose default is a tiny model."""
    folder = home / "model"
    tiny_bert(folder)
    entry = {"sources": [{"path": str(folder)}], "dimensions": TINY_DIMENSIONS, "pooling": "mean"}
    (home / "config.yaml").write_text(json.dumps({"default": "tiny", "models": {"tiny": entry}}))


def test_a_server_of_its_own_is_measured_and_leaves_nothing(home: Path) -> None:
    configure(home)

    done = run_emberd("bench", "--seconds", "0.1", "--json", home=home)

    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["model"] == "tiny"
    assert results["numbers"].keys() >= OWN
    assert all(value > 0 for name, value in results["numbers"].items() if name != "job_loss")
    assert [row["words"] for row in results["throughput"]] == [8, 32, 128, 400]
    assert all(row["texts_per_s"] > 0 and row["tokens_per_s"] > 0 for row in results["throughput"])
    assert results["numbers"]["unloaded_mib"] < results["numbers"]["loaded_mib"]
    port = int(results["url"].rpartition(":")[2])
    assert port not in {each.laddr.port for each in psutil.net_connections("tcp4") if each.laddr}
    assert not (home / "state").exists()  # nor has it touched the user's lock


@pytest.mark.slow
def test_a_running_server_is_measured_where_it_is(home: Path) -> None:
    home.mkdir()
    configure(home)
    with Server(home) as server:
        done = server.run("bench", "--against", server.url, "--seconds", "0.2")
        loads = server.row("tiny")["loads"]

    table = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert server.url in table
    assert "32 clients, one query each" in table
    assert "memory: after an unload" in table
    assert loads >= 4  # cold starts were measured, too


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1", "http://x:port"])
def test_an_address_where_nothing_can_be_measured_is_said(home: Path, url: str) -> None:
    done = run_emberd("bench", "--against", url, home=home)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: ")


def test_an_unknown_model_is_said(home: Path) -> None:
    done = run_emberd("bench", "--model", "minlm", home=home)

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Did you mean minilm" in done.stderr


@pytest.mark.slow
def test_one_that_is_ended_leaves_no_server(home: Path) -> None:
    configure(home)
    command = [sys.executable, "-m", "emberd.cli.main", "bench", "--seconds", "60"]
    asked = subprocess.Popen(command, env=clean_environ(home), stdout=subprocess.DEVNULL)
    bench = psutil.Process(asked.pid)
    server = wait_for(lambda: next(iter(bench.children()), None))
    wait_for(server.children)  # it has a worker

    asked.terminate()

    assert asked.wait(30) == 128 + signal.SIGTERM
    assert not server.is_running()
