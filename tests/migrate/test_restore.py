"""Undo: what it restores, what it copies first, and which backup it takes."""

from pathlib import Path

import numpy as np
import pytest

from emberd.errors import StoreBusyError, StoreError
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.recovery import recover
from emberd.migrate.status import status
from emberd.migrate.undo import undo
from emberd.spaces.stores import StoresFile
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import Made, Work


def agree(note: object, changed: bool) -> None:
    """Confirm an undo."""


def test_undo_restores_vectors_settings_and_what_is_known(
    cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    before = (cmem / "config.json").read_bytes()
    migrate_all([named], work.target(), work.embedder, work.state)

    undone = undo(named, work.state, confirm=agree)

    assert undone.changed is False
    assert undone.copy  # all the same: there is a way back
    assert cosines(stores.read(undone.copy)[1], made.new[:300]).min() > 0.9999
    assert np.array_equal(stores.read(cmem / "memories.db")[1], made.old[:300])
    assert (cmem / "config.json").read_bytes() == before
    assert StoresFile(work.state).read() == {}
    assert named.store.stamp() is None
    with pytest.raises(StoreError, match="no backup"):
        undo(named, work.state, confirm=agree)


@pytest.mark.slow
def test_undo_keeps_a_copy_of_rows_that_were_written_since(
    cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    database = stores.connect(cmem / "memories.db")
    stores.add(database, [601], [made.texts[300]], made.new[300:301])
    asked: list[bool] = []

    undone = undo(named, work.state, confirm=lambda _note, changed: asked.append(changed))

    assert asked == [True]
    assert undone.changed
    assert undone.copy and stores.read(undone.copy)[0] == [*range(1, 301), 601]
    assert stores.read(cmem / "memories.db")[0] == list(range(1, 301))
    seen = database.execute("SELECT count(*) FROM vec_memories").get  # open all the time
    database.close()
    assert seen == 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE memories SET created = 'today' WHERE id = 7",
        "CREATE TABLE sessions AS SELECT 1 AS started",
        "INSERT INTO memories(id, content) VALUES (900, 'no vector yet')",
        "UPDATE vec_memories SET embedding = (SELECT embedding FROM vec_memories WHERE rowid = 2)"
        " WHERE rowid = 1",
        "UPDATE memories SET content = CAST(x'c328' AS TEXT) WHERE id = 7",
    ],
)
def test_undo_keeps_a_copy_whatever_was_written_to_the_file(
    change: str, cmem: Path, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    database = stores.connect(cmem / "memories.db")
    database.execute(change)
    database.close()
    digest = named.store.digest()

    undone = undo(named, work.state, confirm=agree)

    assert undone.copy
    assert (
        find(work.config, str(undone.copy), kind="sqlite-vec", options={}).store.digest() == digest
    )


@pytest.mark.slow
def test_a_copy_is_never_replaced_by_a_later_one(cmem: Path, made: Made, work: Work) -> None:
    named, copies = work.open(cmem), []
    for turn in range(3):
        migrate_all([named], work.target(), work.embedder, work.state)
        database = stores.connect(cmem / "memories.db")
        stores.add(database, [601 + turn], [made.texts[300]], made.new[300:301])
        database.close()
        copies.append(undo(named, work.state, confirm=agree).copy)
        if turn == 1:
            assert copies[0]
            copies[0].unlink()  # as one does with an old copy

    assert [copy and copy.name for copy in copies] == [f"undone-000{n}.db" for n in (1, 2, 3)]
    assert copies[1] and stores.read(copies[1])[0][-1] == 602


@pytest.mark.slow
def test_an_undo_that_failed_is_not_taken_up_again_unasked(
    cmem: Path, made: Made, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emberd.stores.sqlite.database.PATIENCE_S", 1.0)
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    database = stores.connect(cmem / "memories.db")
    stores.add(database, [601], [made.texts[300]], made.new[300:301])
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError):
        undo(named, work.state, confirm=agree)
    database.execute("ROLLBACK")
    database.close()

    assert recover(named, work.state) is None
    assert stores.read(cmem / "memories.db")[0][-1] == 601
    assert status(named, work.state)["copies"] == []
    assert undo(named, work.state, confirm=agree).copy  # now that it is asked for again


@pytest.mark.slow
def test_files_of_somebody_beside_the_backups_do_not_count(cmem: Path, work: Work) -> None:
    beside = cmem / "memories.db.emberd"
    beside.mkdir()
    (beside / "backup-mine.db").touch()
    (beside / "undone-old.db").touch()

    migrate_all([work.open(cmem)], work.target(), work.embedder, work.state)

    assert (beside / "backup-0001.db").exists()


@pytest.mark.slow
def test_two_migrations_keep_two_backups_and_are_undone_one_by_one(
    cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target("minilm-f32"), work.embedder, work.state)
    migrate_all([named], work.target("minilm"), work.embedder, work.state)
    assert len(status(named, work.state)["backups"]) == 2

    undo(named, work.state, confirm=agree)

    assert cosines(stores.read(cmem / "memories.db")[1], made.new[:300]).min() > 0.9999
    undo(named, work.state, confirm=agree)
    assert np.array_equal(stores.read(cmem / "memories.db")[1], made.old[:300])
