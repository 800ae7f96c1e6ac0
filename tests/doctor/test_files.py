"""The lock, the default model's files, and vector stores."""

import json
from pathlib import Path

import pytest

from emberd.doctor.files import lock, stores
from emberd.registry.spec import ModelSpec, Source


@pytest.mark.parametrize("content", ['{"models": {"minilm": 7}}', "\0\0", "[]", ""])
def test_a_lock_can_be_damaged_in_many_ways(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock.json").write_text(content)

    (finding,) = lock(tmp_path)

    assert finding.verdict == "failed"


def test_files_that_the_lock_names_and_that_are_gone_are_named(tmp_path: Path) -> None:
    file = {"size": 1, "mtime_ns": 1, "inode": 1, "sha256": "0" * 64}
    entry = {"source": "path:/gone", "folder": "/gone", "files": {"model.safetensors": file}}
    content = {"version": 1, "models": {"minilm": entry}}
    (tmp_path / "lock.json").write_text(json.dumps(content))

    (finding,) = lock(tmp_path)

    assert (finding.verdict, finding.advice) == ("warning", "Run `emberd pull minilm`.")
    assert finding.detail.startswith("files of minilm ")
    assert finding.detail.endswith(" /gone")
    own = ModelSpec(name="minilm", sources=(Source(path="/gone"),), dimensions=384, pooling="mean")
    (finding,) = lock(tmp_path, [own])
    assert finding.advice == "Correct the path in models.minilm.sources of the config file."
    other = ModelSpec(name="other", sources=(Source(path="/gone"),), dimensions=384, pooling="mean")
    (finding,) = lock(tmp_path, [other])  # nobody asks for minilm any more
    assert finding.verdict == "ok"


def test_a_store_that_is_not_where_it_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "here.db").write_bytes(b"rows")

    here, gone = stores({"cmem": tmp_path / "here.db", "notes": tmp_path / "gone.db"})

    assert (here.check, here.verdict) == ("store cmem", "ok")
    assert (gone.check, gone.verdict) == ("store notes", "failed")
    assert "stores.notes.path" in gone.advice


def test_a_stores_folder_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "memories.db").write_bytes(bytes(3 * 2**20))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "log").write_bytes(bytes(2**20))

    (here,) = stores({"cmem": tmp_path})

    assert here.detail == f"{tmp_path}, 4 MiB"
