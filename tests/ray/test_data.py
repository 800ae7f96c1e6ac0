"""Files on a Ray cluster, and `emberd.ray.Embedder` in somebody's own pipeline."""

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from emberd.backends.tiny_bert import tiny_bert
from emberd.cli.main import INTERRUPTED_EXIT
from emberd.config.load import load_config
from emberd.errors import BadOptionError, FingerprintMismatchError
from emberd.migrate.embedding import Target
from emberd.ray.data import Writer
from emberd.ray.embedder import Embedder
from tests.ray.clusters import Cluster
from tests.ray.commands import under_way
from tests.serving import Server, clean_environ, has_ended, wait_for

TEXTS = ["the kettle", None, "is on", "", "at noon"]
PIPELINE = """
import json, sys
from pathlib import Path
import ray
from emberd.ray import Embedder
ray.init(address=sys.argv[1], log_to_driver=False)
texts = json.loads(sys.argv[2])
actors = ray.data.ActorPoolStrategy(size=1)
rows = ray.data.from_items([{"text": text} for text in texts]).map_batches(
    Embedder, fn_constructor_args=("tiny",), fn_constructor_kwargs={"config": Path(sys.argv[3])},
    compute=actors, batch_format="pyarrow",
)
vectors = [row["embedding"] for row in rows.take_all()]
print(json.dumps([each if each is None else list(map(float, each)) for each in vectors]))
"""
ALIKE = """
import sys
import ray
from emberd.errors import WorkerStartError
from emberd.ray.cluster import check_alike
ray.init(address=sys.argv[1], log_to_driver=False)
class Numbers:
    def __init__(self, used):
        self.compute = lambda model: used
def said(run, used):
    try:
        check_alike(run, "tiny", Numbers(used))
    except WorkerStartError as error:
        return error.message
    return ""
print(said("one", "f32"), said("one", "bf16"), said("two", "bf16"), sep="|")
"""
HUB_MODEL = "models: {own: {sources: [{hf: me/tiny}], dimensions: 64, pooling: mean}}"
TARGET = Target(model="tiny", dimensions=64, fingerprint="f1", probes="")
LEFT_OPEN = """
import numpy as np
import psutil
from emberd.ray import Embedder
embedder = Embedder("tiny")
assert embedder({"text": np.array(["the kettle"])})["embedding"].shape == (1, 64)
(worker,) = [child.pid for child in psutil.Process().children(recursive=True)
             if "emberd.worker" in child.cmdline()]
print(worker)
"""


def cached(hub: Path, *, seed: int) -> None:
    """Put a model into a Hub cache."""
    commit = "c" * 40
    repository = hub / "hub" / "models--me--tiny"
    tiny_bert(repository / "snapshots" / commit, seed=seed)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def run(environ: dict[str, str], *words: str, timeout_s: float | None = None) -> str:
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environ, capture_output=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()[-1]


def test_a_cluster_writes_the_parts_that_one_machine_would(
    small: Server, environ: dict[str, str], address: str, tmp_path: Path
) -> None:
    texts = TEXTS * 100
    parquet.write_table(pa.table({"id": range(500), "text": texts}), tmp_path / "a.parquet")
    command = ("-m", "emberd", "embed-files", str(tmp_path / "a.parquet"), "--json")
    rows = ("--part-rows", "60", "--out")
    run(environ, *command, *rows, str(tmp_path / "here"))

    said = run(environ, *command, *rows, str(tmp_path / "there"), "--ray", address)

    row = json.loads(said)
    assert (row["rows"], row["without_text"], row["parts"]) == (500, 200, 9)
    here, there = parquet.read_table(tmp_path / "here"), parquet.read_table(tmp_path / "there")
    assert here.schema.equals(there.schema)
    stamps = [json.loads(each.schema.metadata[b"emberd.stamp"]) for each in (here, there)]
    assert stamps[0]["fingerprint"] == stamps[1]["fingerprint"]
    assert here.drop(["embedding"]).equals(there.drop(["embedding"]))
    ours, theirs = (each["embedding"].drop_null().to_pylist() for each in (here, there))
    assert np.allclose(ours, theirs, atol=1e-6)
    (tmp_path / "there" / "00000-a-000000000060.parquet").unlink()
    again = json.loads(run(environ, *command, *rows, str(tmp_path / "there"), "--ray", address))
    assert (again["rows"], again["rows_before"]) == (500, 440)


def test_stopped_it_says_so_on_stderr_alone_and_goes_on(
    environ: dict[str, str], address: str, tmp_path: Path
) -> None:
    parquet.write_table(pa.table({"text": TEXTS * 2000}), tmp_path / "a.parquet")
    out = tmp_path / "out"
    command = [
        *("embed-files", str(tmp_path / "a.parquet"), "--json", "--progress"),
        *("--part-rows", "250", "--out", str(out), "--ray", address),
    ]

    code, said, why = under_way(command, environ, lambda it: it.send_signal(signal.SIGINT))

    assert code == INTERRUPTED_EXIT, why
    assert said == ""
    assert '"code": "stopped"' in why
    row = json.loads(run(environ, "-m", "emberd", *command))
    assert row["rows"] == len(TEXTS) * 2000
    assert 0 < row["rows_before"] < row["rows"]


def test_a_pipeline_of_ones_own_gets_vectors(
    small: Server, environ: dict[str, str], address: str
) -> None:
    vectors = json.loads(
        run(environ, "-c", PIPELINE, address, json.dumps(TEXTS), environ["EMBERD_CONFIG"])
    )

    wanted = iter(small.embed(*filter(None, TEXTS))["embeddings"])
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert np.allclose(vector, next(wanted), atol=1e-6) if text else vector is None


def test_a_process_with_an_embedder_ends_by_itself_and_its_worker_with_it(small: Server) -> None:
    environ = clean_environ(small.home) | {"EMBERD_CONFIG": str(small.home / "config.yaml")}

    said = run(environ, "-c", LEFT_OPEN, timeout_s=120)

    with suppress(psutil.NoSuchProcess):
        worker = psutil.Process(int(said))
        wait_for(lambda: has_ended(worker))


def test_a_node_with_other_files_ends_the_command_and_writes_nothing(
    cluster: Cluster, address: str, tmp_path: Path
) -> None:
    cached(cluster.home / "hf", seed=1)
    cached(tmp_path / "hf", seed=2)
    (tmp_path / "config.yaml").write_text(HUB_MODEL)
    (tmp_path / "a.txt").write_text("the kettle\n")
    environ = cluster.environ | {
        "EMBERD_CONFIG": str(tmp_path / "config.yaml"), "HF_HOME": str(tmp_path / "hf"),
        "EMBERD_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    command = ("-m", "emberd", "embed-files", str(tmp_path / "a.txt"), "--model", "own", "--json")

    done = subprocess.run(
        [sys.executable, *command, "--out", str(tmp_path / "out"), "--ray", address],
        env=environ, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    ours = json.loads((tmp_path / "out" / "_emberd.json").read_text())["fingerprint"]
    named = {*re.findall(r"\b[0-9a-f]{16}\b", json.loads(done.stderr.splitlines()[-1])["detail"])}
    assert len(named) == 2
    assert ours in named
    assert not [*(tmp_path / "out").glob("*.parquet")]


def test_a_node_that_does_not_see_the_folder_says_so(
    small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERD_HOME", str(small.home))
    config = load_config(environ=clean_environ(small.home))
    writer = Writer(tmp_path / "nowhere", TARGET, config, "a run")

    (said,) = writer({"name": np.array(["00000-a-000000000000.parquet"])})["said"]

    assert "_emberd.json cannot be used on" in json.loads(said)["message"]
    assert "the same paths on every node" in json.loads(said)["hint"]


def test_nodes_that_do_not_compute_alike_are_refused(environ: dict[str, str], address: str) -> None:
    first, second, other_run = run(environ, "-c", ALIKE, address).split("|")

    assert (first, other_run) == ("", "")
    assert "tiny in f32 on one of them, and in bf16 on" in second


def test_without_a_cluster_it_says_what_to_do(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the\n")
    command = ("-m", "emberd", "embed-files", str(tmp_path / "a.txt"), "--out", str(tmp_path / "o"))

    done = subprocess.run(
        [sys.executable, *command, "--ray", "127.0.0.1:9"], env=environ, capture_output=True
    )

    assert done.returncode == 1
    assert b"There is no Ray cluster at 127.0.0.1:9" in done.stderr


def test_an_embedder_takes_arrays_and_tables(
    small: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERD_HOME", str(small.home))
    answer = small.embed(*filter(None, TEXTS))
    with pytest.raises(FingerprintMismatchError):
        Embedder("tiny", fingerprint="0" * 16)
    embedder = Embedder("tiny", fingerprint=answer["fingerprint"])

    by_arrays: Any = embedder({"text": np.array(TEXTS, object), "n": np.arange(5)})
    by_table: Any = embedder(pa.table({"text": TEXTS}))

    has_text = [bool(text) for text in TEXTS]
    assert by_arrays["embedding"].dtype == np.float32
    assert np.allclose(by_arrays["embedding"][has_text], answer["embeddings"], atol=1e-6)
    assert np.isnan(by_arrays["embedding"][~np.array(has_text)]).all()
    assert by_table["embedding"].is_valid().to_pylist() == has_text
    with pytest.raises(BadOptionError, match="There is no column 'text'"):
        embedder({"body": np.array(["a"])})
