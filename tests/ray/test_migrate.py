"""A store whose texts a cluster embeds: staged and swapped here, and the same as without."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.migrate import stores
from tests.ray.clusters import Cluster

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
