"""Files on a Ray cluster, and `emberd.ray.Embedder` in somebody's own pipeline."""

import json
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

from emberd.errors import BadOptionError, FingerprintMismatchError
from emberd.ray.embedder import Embedder
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
