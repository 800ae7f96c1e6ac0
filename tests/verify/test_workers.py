"""What a model in a fresh worker of its own gives besides its vectors."""

import os
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import TINY_DIMENSIONS, tiny_bert
from emberd.config.load import load_config
from emberd.spaces.lock import LockEntry
from emberd.verify.workers import LoadedModel, run_in_fresh_worker
from tests.serving import clean_environ
from tests.verify import late_audit

CONFIG = """
models:
  tiny: {sources: [{path: tiny}], dimensions: 64, pooling: mean, backend: late}
"""


def test_damage_that_is_found_after_the_last_answer_is_not_missed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = home / "plugins/late-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text(
        f"[emberd.backends]\nlate = {late_audit.__name__}:LateAudit\n"
    )
    path = [str(plugin.parent), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv(late_audit.ANSWERED, str(home / "answered"))
    tiny_bert(home / "tiny")
    (home / "config.yaml").write_text(CONFIG)
    config = load_config(environ=clean_environ(home))

    async def work(model: LoadedModel) -> tuple[int, ...]:
        answer = await model.embed(["a"])
        (home / "answered").touch()
        return answer.vectors.shape

    ran = run_in_fresh_worker(
        config, config.catalog.get("tiny"), LockEntry(source="path:tiny", folder=""), work
    )

    assert ran.result == (1, TINY_DIMENSIONS)
    assert late_audit.DAMAGE in (ran.damage or "")
