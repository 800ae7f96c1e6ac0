"""Runs and undos that died between two steps, of one store and of several."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.errors import StoreError
from emberd.migrate.joint_run import joint_run, migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.recovery import recover
from emberd.migrate.stage import staging
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.swap import swapping
from emberd.migrate.undo import undo
from emberd.migrate.workplace import Workplace
from emberd.spaces.stores import StoresFile
from tests.migrate import stores
from tests.migrate.conftest import UNCHANGED, Beside, Made, Work, config_of, still_old


def agree(note: object, changed: bool) -> None:
    """Confirm an undo."""


class Died(BaseException):
    """The process dies here: `swapping` and `staging` cannot handle it."""


def die_after(commits: int, named: list[StoreRef], work: Work, along: Beside | None = None) -> None:
    """Do what `migrate_all` does, to the moment after so many commits."""
    joint = joint_run(named, along, work.state)
    with pytest.raises(Died), ExitStack() as stack:  # noqa: PT012 - where is the question
        staged = [
            stack.enter_context(staging(one, work.target(), work.embedder, work.state))
            for one in named
        ]
        for one in staged:
            one.joint = joint
        swaps = [stack.enter_context(swapping(one)) for one in staged]
        if along:
            along.commit()
        for commit in swaps[:commits]:
            commit()
        raise Died


@pytest.mark.slow
@pytest.mark.parametrize("commits", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 1])
def test_killed_between_the_commits_all_goes_back_or_all_goes_on(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path, commits: int, first: int
) -> None:
    along = Beside(tmp_path / "file")
    die_after(commits, [work.open(folder) for folder in two], work, along)

    said = recover(work.open(two[first]), work.state)  # whichever is looked at first
    nothing = recover(work.open(two[1 - first]), work.state)

    assert nothing is None
    assert said
    if commits < 2:
        assert "Took back" in said
        assert along.edit.file.read_text() == "old"
        for folder in two:
            still_old(folder, made, work)
    else:
        assert "Finished a migration to" in said
        assert along.edit.file.read_text() == "new"
        for folder in two:
            assert config_of(folder)["embedding"]["model"] == "minilm-f32"  # type: ignore[index]
            assert len(status(work.open(folder), work.state)["backups"]) == 1


@pytest.mark.slow
def test_a_file_that_somebody_edited_since_is_left_alone(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    along = Beside(tmp_path / "file")
    die_after(1, [work.open(folder) for folder in two], work, along)
    along.edit.file.write_text("somebody's")

    said = recover(work.open(two[0]), work.state)

    assert said and f"{along.edit.file} was left alone" in said
    assert along.edit.file.read_text() == "somebody's"
    for folder in two:
        still_old(folder, made, work)


@pytest.mark.slow
def test_taking_back_that_was_killed_goes_on_backwards(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    named = [work.open(folder) for folder in two]
    die_after(2, named, work)
    Workplace(named[0].store, work.state).mark()  # as far as it came

    said = recover(named[1], work.state)

    assert said and "Took back" in said
    for folder in two:
        still_old(folder, made, work)


def test_two_stores_in_one_file_are_refused_before_anything_is_touched(
    tmp_path: Path, made: Made, work: Work
) -> None:
    path = tmp_path / "notes.db"
    database = stores.connect(path)
    for table in "ab":
        database.execute(f"CREATE VIRTUAL TABLE {table} USING vec0(e float[384], +body text)")
        for at in range(30):
            row = (at + 1, made.old[at].tobytes(), made.texts[at])
            database.execute(f"INSERT INTO {table}(rowid, e, body) VALUES (?, ?, ?)", row)  # noqa: S608
    database.close()
    a, b = (replace(work.open(path, table=table), name=table) for table in "ab")

    with pytest.raises(StoreError, match="a and b are in the same file") as caught:
        migrate_all([a, b], work.target(), work.embedder, work.state)
    assert caught.value.hint
    assert not (tmp_path / "notes.db.emberd").exists()

    die_after(1, [a], work)  # committed, and what follows is not done
    for refused in (
        lambda: plan(b, work.target(), work.embedder, work.state),
        lambda: migrate_all([b], work.target(), work.embedder, work.state),
        lambda: undo(b, work.state, confirm=agree),
    ):
        with pytest.raises(StoreError, match="belongs to a, another table") as caught:
            refused()
        assert "table=a" in (caught.value.hint or "")

    assert "Finished" in (recover(a, work.state) or "")  # b's have not thrown it away
    assert StoresFile(work.state).read()["a"].model == "minilm-f32"
    shutil.rmtree(tmp_path / "notes.db.emberd")
    assert migrate_all([b], work.target(), work.embedder, work.state)["b"].rows == 30


def test_settings_that_somebody_edits_meanwhile_keep_that(cmem: Path, work: Work) -> None:
    die_after(1, [work.open(cmem)], work)
    edited = UNCHANGED | {"dedup": {"threshold": 0.3}}
    (cmem / "config.json").write_text(json.dumps(edited))

    recover(work.open(cmem), work.state)

    assert config_of(cmem) == edited | {"embedding": {"model": "minilm-f32", "dimensions": 384}}


def test_what_followed_a_commit_is_finished_by_whoever_comes_next(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    die_after(1, [named], work)
    assert config_of(cmem) == UNCHANGED

    said = recover(named, work.state)

    assert said and "minilm-f32" in said
    assert config_of(cmem) == UNCHANGED | {"embedding": {"model": "minilm-f32", "dimensions": 384}}
    assert len(status(named, work.state)["backups"]) == 1
    assert recover(named, work.state) is None


def test_killed_between_a_backup_and_its_note_the_number_is_used_again(
    cmem: Path, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    beside = cmem / "memories.db.emberd"
    (beside / "backup-0001.db").replace(beside / "pending.db")  # its note was written before it
    shutil.copy(beside / "backup-0001.json", beside / "pending.json")

    assert recover(named, work.state)

    assert sorted(path.name for path in beside.iterdir()) == [
        "backup-0001.db", "backup-0001.json", "lock",
    ]  # fmt: skip
    assert len(status(named, work.state)["backups"]) == 1


@pytest.mark.parametrize("restored", [False, True])
def test_an_undo_that_was_stopped_is_finished(
    restored: bool, cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    place = Workplace(named.store, work.state)
    (note,) = (cmem / "memories.db.emberd").glob("backup-*.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"undoing": True}))
    if restored:
        with named.store.restoring(note.with_suffix(".db")) as restoration:
            restoration.commit()

    said = recover(named, work.state)

    assert said and "undo" in said
    assert not place.backups()
    assert bool(place.copies()) is not restored
    still_old(cmem, made, work)
