"""Files of one's own that are checked: damaged, unreadable, and a state that cannot be written."""

import sys
from pathlib import Path

import pytest

from emberd.errors import ConfigError
from emberd.folder.pull import check_files, pull
from emberd.folder.space import BackendFiles
from emberd.hashing import FileHash
from emberd.models.availability import LocalCopy
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockFile
from tests import model_folder

PATTERNS = ("*.json", "*.safetensors")


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = Source(path=str(model_folder.write(tmp_path / "model")))
    spec = ModelSpec(name="m", sources=(source,), dimensions=8, pooling="mean", max_tokens=9)
    (tmp_path / "state").write_text("a file in its place")

    with pytest.raises(ConfigError, match=str(tmp_path / "state")) as caught:
        pull(
            spec, backend=BackendFiles("openvino", PATTERNS), hub=tmp_path,
            lock=LockFile(tmp_path / "state"), revision=None, update=False,
            report=lambda _done, _total: None,
        )  # fmt: skip

    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere root can read every file")
def test_a_file_that_is_gone_or_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "model")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/proc/self/mem")
    (folder / "tokenizer.json").unlink()
    known = dict.fromkeys(("config.json", "tokenizer.json"), FileHash(1, 1, 1, "0" * 64))
    here = LocalCopy(Source(path=str(folder)), folder, downloaded=False)

    check = check_files(here, hub=tmp_path, files=PATTERNS, known=known)

    assert (check.damaged, check.by) == (("config.json", "tokenizer.json"), "kept")
