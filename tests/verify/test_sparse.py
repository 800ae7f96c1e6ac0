"""`emberd verify` of a sparse model: a real worker, tiny checkpoints, both backends."""

import json
import shutil
from pathlib import Path

import pytest

from emberd.config.load import Config, load_config
from emberd.verify.finding import Finding
from tests.sparse_models import SPARSE
from tests.verify.support import verify

ENTRY = "models: {{tiny: {{kind: sparse, dimensions: 149, sources: [{{path: {}}}]}}}}"
OK = ["load", "space", "entries", "alone = together", "longest text", "folder"]


def configured(home: Path, folder: Path) -> Config:
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(ENTRY.format(folder))
    return load_config(environ={"EMBERD_HOME": str(home)})


def found(config: Config, *, full: bool = False) -> dict[str, Finding]:
    findings = verify(config, config.catalog.get("tiny"), full=full)
    return {
        f"{each.check} {each.detail.split(':')[0]}" if full else each.check: each
        for each in findings
    }


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_a_sparse_model_is_verified_by_its_vectors(name: str, tmp_path: Path) -> None:
    config = configured(tmp_path / "home", SPARSE / name)
    first, again = found(config), found(config)

    assert [first[check].verdict for check in OK] == ["ok"] * len(OK)
    assert "for the first time" in first["space"].detail
    assert "as before" in again["space"].detail
    assert "lowest cosine of the probe texts 1.0000" in again["space"].detail
    assert first["answers first"].verdict in ("ok", "warning")  # its weights are random
    assert first["backends agree"].verdict == "skipped"


@pytest.mark.slow
def test_backends_are_compared(tmp_path: Path) -> None:
    findings = found(configured(tmp_path / "home", SPARSE / "bert"), full=True)

    assert findings["backends agree mlx"].verdict == "ok"
    assert findings["backends agree onnx"].verdict == "skipped"


def test_what_is_remembered_is_small_and_moves_with_the_weights(tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE / "distilbert", tmp_path / "model")
    config = configured(tmp_path / "home", folder)
    before = found(config)["space"].detail.split(",")[0]
    lock = json.loads((tmp_path / "home" / "state" / "lock.json").read_text())
    assert len(json.dumps(lock)) < 64 * 1024

    pooling = folder / "document_1_SpladePooling" / "config.json"
    stated = json.loads(pooling.read_text())
    pooling.write_text(json.dumps(stated | {"activation_function": "relu"}))

    space = found(config)["space"]
    assert not space.detail.startswith(before)
    assert space.verdict == "failed"


def test_the_table_of_queries_is_part_of_the_space(tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE / "distilbert", tmp_path / "model")
    config = configured(tmp_path / "home", folder)
    before = found(config)["space"].detail.split(",")[0]
    table = folder / "query_0_SparseStaticEmbedding" / "model.safetensors"
    content = bytearray(table.read_bytes())
    content[-3] ^= 1
    table.write_bytes(content)

    assert not found(config)["space"].detail.startswith(before)
