"""A participant or a store that fails when all are committed: what is taken back then."""

import json
from pathlib import Path

import pytest

from emberd.config.edit import Edit
from emberd.errors import ConfigError, MigrationError
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.store_ref import StoreRef
from emberd.stores.sqlite.cmem import CmemStore
from tests.migrate.drawn import NEW, DrawingEmbedder, holds, make_cmem


class _File:
    """A file that changes together with the stores, or fails to."""

    def __init__(self, file: Path, *, commits: bool = True, goes_back: bool = True) -> None:
        file.write_text("old")
        self.edit = Edit(file, b"old", b"new")
        self.did: list[str] = []
        self._commits, self._goes_back = commits, goes_back

    def commit(self) -> None:
        self.did.append("commit")
        if not self._commits:
            raise ConfigError("The file is not ours.")
        self.edit.commit()

    def rollback(self) -> None:
        self.did.append("rollback")
        if not self._goes_back:
            raise ConfigError("The file cannot be restored.")
        self.edit.rollback()


class _Unsearchable(CmemStore):
    """A store that the check after the swap finds wrong."""

    def search(self, vector: bytes, count: int) -> tuple[int, ...]:
        del vector, count
        return ()


def stores_in(folder: Path, *kinds: type[CmemStore]) -> list[StoreRef]:
    paths = [make_cmem(folder / str(at)) for at in range(len(kinds))]
    return [
        StoreRef(name=str(path), store=kind(path)) for kind, path in zip(kinds, paths, strict=True)
    ]


def test_what_did_not_commit_is_not_taken_back(tmp_path: Path) -> None:
    refs = stores_in(tmp_path, CmemStore, CmemStore)
    file = _File(tmp_path / "config.yaml", commits=False)

    with pytest.raises(ConfigError, match="not ours"):
        migrate_all(refs, NEW, DrawingEmbedder(), tmp_path / "state", participant=file)

    assert file.did == ["commit"]
    assert all(holds(ref, "old") for ref in refs)


def test_everything_that_committed_is_taken_back(tmp_path: Path) -> None:
    refs = stores_in(tmp_path, CmemStore, _Unsearchable)
    file = _File(tmp_path / "config.yaml")

    with pytest.raises(MigrationError, match="does not find it"):
        migrate_all(refs, NEW, DrawingEmbedder(), tmp_path / "state", participant=file)

    assert file.did == ["commit", "rollback"]
    assert file.edit.file.read_text() == "old"
    assert all(holds(ref, "old") for ref in refs)
    settings = [json.loads((Path(ref.address).parent / "config.json").read_text()) for ref in refs]
    assert [each["embedding"]["model"] for each in settings] == ["old", "old"]


def test_what_cannot_be_taken_back_is_said_and_the_rest_is_taken_back(tmp_path: Path) -> None:
    refs = stores_in(tmp_path, CmemStore, _Unsearchable)
    file = _File(tmp_path / "config.yaml", goes_back=False)

    with pytest.raises(MigrationError, match="The file cannot be restored") as caught:
        migrate_all(refs, NEW, DrawingEmbedder(), tmp_path / "state", participant=file)

    assert "does not find it" in caught.value.message  # why it was to be taken back
    assert "emberd migrate status" in (caught.value.hint or "")
    assert all(holds(ref, "old") for ref in refs)
