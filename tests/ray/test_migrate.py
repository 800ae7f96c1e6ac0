"""A store whose texts a cluster embeds: staged and swapped here, and the same as without."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from emberd.cli.main import INTERRUPTED_EXIT
from tests.migrate import stores
from tests.ray.clusters import Cluster
from tests.ray.commands import WITHIN_S, under_way
from tests.serving import wait_for

ROWS = 1500


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emberd", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True)


def test_a_cluster_embeds_what_this_machine_swaps(
    cluster: Cluster, address: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text(stores.MODELS)
    texts = stores.texts(ROWS)
    path = stores.make_cmem(tmp_path / "store", texts, stores.embed(home, texts, "old"))
    environ = {**cluster.environ, "EMBERD_CONFIG": str(home / "config.yaml")}
    command = ("migrate", "run", str(tmp_path / "store"), "--to", "new", "--yes", "--json")

    nowhere = run(environ, *command, "--ray", "127.0.0.1:9")
    done = run(environ, *command, "--ray", address)

    assert nowhere.returncode == 1
    assert "There is no Ray cluster at 127.0.0.1:9" in nowhere.stderr
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "moved"
    keys, vectors = stores.read(path)
    assert len(keys) == ROWS
    assert np.allclose(vectors, stores.embed(home, texts, "new"), atol=1e-5)


def test_stopped_it_goes_on_and_a_worker_that_is_killed_costs_nothing(
    cluster: Cluster, address: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text(stores.MODELS)
    texts = stores.texts(ROWS)
    path = stores.make_cmem(tmp_path / "store", texts, stores.embed(home, texts, "old"))
    environ = {**cluster.environ, "EMBERD_CONFIG": str(home / "config.yaml")}
    command = [
        *("migrate", "run", str(tmp_path / "store"), "--to", "new"),
        *("--yes", "--json", "--progress", "--batch", "4", "--ray", address),
    ]

    stopped, _, why = under_way(command, environ, lambda it: it.send_signal(signal.SIGINT))
    wait_for(lambda: not actors(cluster), within_s=WITHIN_S)
    code, said, errors = under_way(command, environ, lambda _: actors(cluster)[0].kill())

    assert stopped == INTERRUPTED_EXIT, why
    assert code == 0, errors
    done = json.loads(said)
    assert done["status"] == "moved"
    assert 0 < done["embedded"] < ROWS
    keys, vectors = stores.read(path)
    assert len(keys) == ROWS
    assert np.allclose(vectors, stores.embed(home, texts, "new"), atol=1e-5)


LEFT = """
import sys
from concurrent.futures import FIRST_COMPLETED, wait
import ray
from emberd.config.load import load_config
from emberd.ray.cluster import ClusterEmbedder
with ClusterEmbedder(load_config(), sys.argv[1]) as embedder:
    asked = [
        embedder.submit(["the kettle"] * 400, model="old")
        for _ in range(40)
    ]
    wait(asked, return_when=FIRST_COMPLETED)
    assert not all(each.done() for each in asked)
assert any([each.exception(10) for each in asked])
print(ray.is_initialized())
"""


def test_whoever_leaves_while_batches_are_asked_for_is_not_ended(
    cluster: Cluster, address: str, tmp_path: Path
) -> None:
    """Ray would connect again for a thread that asks it later, and end the process with code 1."""
    (tmp_path / "config.yaml").write_text(stores.MODELS)
    environ = {**cluster.environ, "EMBERD_CONFIG": str(tmp_path / "config.yaml")}
    command = [sys.executable, "-c", LEFT, address]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def actors(cluster: Cluster) -> list[psutil.Process]:
    """Return the workers of `--ray` on this cluster."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_worker = process.cmdline()[:1] in (["ray::Worker"], ["ray::Worker.embed"])
            if is_worker and process.environ().get("EMBERD_HOME") == str(cluster.home):
                found.append(process)
    return found
