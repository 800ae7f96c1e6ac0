"""`emberd verify` of a re-ranker: a real worker, a tiny checkpoint, both backends."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.config.load import Config, load_config
from emberd.pool.status import ModelStatus
from emberd.verify import reranking
from emberd.verify.finding import Finding
from tests.rerankers import FOLDER
from tests.verify.support import verify

ENTRY = "models: {{tiny: {{kind: rerank, pooling: cls, sources: [{{path: {}}}]}}}}"


def configured(home: Path, folder: Path = FOLDER) -> Config:
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(ENTRY.format(folder))
    return load_config(environ={"EMBERD_HOME": str(home)})


def found(config: Config, *, full: bool = False) -> dict[str, Finding]:
    findings = verify(config, config.catalog.get("tiny"), full=full)
    return {
        f"{each.check} {each.detail.split(':')[0]}" if full else each.check: each
        for each in findings
    }


def test_a_reranker_is_verified_by_its_scores(tmp_path: Path) -> None:
    config = configured(tmp_path / "home")
    first, again = found(config), found(config)

    ok = ["load", "fingerprint", "alone = together", "longest text"]
    assert [first[check].verdict for check in ok] == ["ok"] * 4
    assert "first time" in first["fingerprint"].detail
    assert "as before" in again["fingerprint"].detail
    assert first["answers first"].verdict == "warning"  # its weights are random, and its own
    assert first["backends agree"].verdict == "skipped"


@pytest.mark.slow
def test_backends_are_compared_by_scores(tmp_path: Path) -> None:
    findings = found(configured(tmp_path / "home"), full=True)

    assert findings["backends agree mlx"].verdict == "ok"
    assert findings["backends agree onnx"].verdict == "skipped"


def test_damaged_files_are_an_error_that_names_them(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b"}}))

    findings = found(configured(tmp_path / "home", folder))

    assert findings["load"].verdict == "failed"
    assert "config.json" in findings["load"].detail


def test_what_scores_would_fail(tmp_path: Path) -> None:
    config = configured(tmp_path / "home")
    spec = config.catalog.get("tiny")
    status = ModelStatus.from_json(dict.fromkeys(ModelStatus.__slots__) | {"compute": "f32"})
    right = np.where(np.eye(4) == 1, np.float32(9), np.float32(-9))

    def judge(scores: reranking.Scores) -> dict[str, str]:
        files = None  # only other backends need them
        subject = reranking.Subject(config, spec, files, scores, (None, "f"))  # type: ignore[arg-type]
        return {each.check: each.verdict for each in subject.findings(full=False)}

    good = reranking.Scores(status, right, right, right, cuts_long=True)
    assert judge(good)["answers first"] == "ok"
    assert judge(replace(good, alone=right + np.float32(0.01)))["alone = together"] == "failed"
    assert judge(replace(good, cuts_long=False))["longest text"] == "failed"
    assert judge(replace(good, scores=right[::-1]))["answers first"] != "ok"
