"""Moving stores: what is in them afterwards, going on after a stop, together or not at all."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.cli.migrate_report import migrated_sentences
from emberd.errors import ConfigError, MigrationError, NoServerError, StoreBusyError, StoreError
from emberd.migrate.base import Key, Replacement, Shape
from emberd.migrate.cmem import CmemStore
from emberd.migrate.embedding import embed
from emberd.migrate.known import find
from emberd.migrate.plan import plan
from emberd.migrate.recovery import recover
from emberd.migrate.run import RunOptions, joint_run, migrate_all
from emberd.migrate.stage import staging
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.swap import swapping
from emberd.migrate.undo import undo
from emberd.migrate.workplace import Workplace
from emberd.spaces.stores import StoresFile
from tests.migrate import stores
from tests.migrate.conftest import ROWS, Beside, Made, Work

UNCHANGED = stores.CMEM_CONFIG


def config_of(folder: Path) -> object:
    return json.loads((folder / "config.json").read_text())


def agree(note: object, changed: bool) -> None:
    """Confirm an undo."""


def test_every_row_has_its_new_vector_and_the_settings_name_the_model(
    cmem: Path, made: Made, work: Work
) -> None:
    named, target = work.open(cmem), work.target()

    moved = migrate_all([named], target, work.embedder, work.state)[named.name]

    keys, vectors = stores.read(cmem / "memories.db")
    assert keys == list(range(1, 301))
    assert stores.cosines(vectors, made.new[:300]).min() > 0.9999
    assert (moved.rows, moved.embedded, moved.strays) == (300, 300, 0)
    assert moved.lowest_cosine and moved.lowest_cosine > 0.9999
    assert config_of(cmem) == UNCHANGED | {"embedding": {"model": "minilm-f32", "dimensions": 384}}
    assert list(UNCHANGED) == list(config_of(cmem))  # type: ignore[call-overload]
    stamp = named.store.stamp()
    assert stamp and (stamp.model, stamp.fingerprint) == ("minilm-f32", target.fingerprint)
    assert StoresFile(work.state).read()[named.name].model == "minilm-f32"


def test_another_dimension_changes_the_ddl_in_nothing_else(
    tmp_path: Path, made: Made, work: Work
) -> None:
    wide = np.concatenate([made.old[:40], made.old[:40]], axis=1)
    path = stores.make_cmem(tmp_path / "wide", made.texts[:40], wide)
    named = work.open(path)
    assert named.store.inspect().dimensions == 768

    migrate_all([named], work.target("minilm"), work.embedder, work.state)

    database = stores.connect(path)
    ddl = database.execute("SELECT sql FROM sqlite_master WHERE name = 'vec_memories'").get
    database.close()
    assert ddl == "CREATE VIRTUAL TABLE vec_memories USING vec0(embedding float[384])"
    assert stores.cosines(stores.read(path)[1], made.old[:40]).min() > 0.9999
    assert config_of(path.parent) == UNCHANGED | {
        "embedding": {"model": "minilm", "dimensions": 384}
    }


def test_a_space_that_is_there_is_seen_by_sample_and_by_stamp(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    by_sample = plan(named, work.target("minilm"), work.embedder, work.state)
    elsewhere = plan(named, work.target(), work.embedder, work.state)
    migrate_all([named], work.target(), work.embedder, work.state)

    by_stamp = plan(named, work.target(), work.embedder, work.state)

    assert by_sample.there and "embedded again and are the same" in by_sample.there
    assert elsewhere.there is None
    assert by_stamp.there and "stamp" in by_stamp.there


def test_undo_restores_vectors_settings_and_what_is_known(
    cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    before = (cmem / "config.json").read_bytes()
    migrate_all([named], work.target(), work.embedder, work.state)

    undone = undo(named, work.state, confirm=agree)

    assert undone.changed is False
    assert undone.copy  # all the same: there is a way back
    assert stores.cosines(stores.read(undone.copy)[1], made.new[:300]).min() > 0.9999
    assert np.array_equal(stores.read(cmem / "memories.db")[1], made.old[:300])
    assert (cmem / "config.json").read_bytes() == before
    assert StoresFile(work.state).read() == {}
    assert named.store.stamp() is None
    with pytest.raises(StoreError, match="no backup"):
        undo(named, work.state, confirm=agree)


def test_undo_keeps_a_copy_of_rows_that_were_written_since(
    cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    database = stores.connect(cmem / "memories.db")
    stores.add(database, [601], [made.texts[600]], made.new[600:601])
    asked: list[bool] = []

    undone = undo(named, work.state, confirm=lambda _note, changed: asked.append(changed))

    assert asked == [True]
    assert undone.changed
    assert undone.copy and stores.read(undone.copy)[0] == [*range(1, 301), 601]
    assert stores.read(cmem / "memories.db")[0] == list(range(1, 301))
    seen = database.execute("SELECT count(*) FROM vec_memories").get  # open all the time
    database.close()
    assert seen == 300


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


def test_a_copy_is_never_replaced_by_a_later_one(cmem: Path, made: Made, work: Work) -> None:
    named, copies = work.open(cmem), []
    for turn in range(3):
        migrate_all([named], work.target(), work.embedder, work.state)
        database = stores.connect(cmem / "memories.db")
        stores.add(database, [601 + turn], [made.texts[600]], made.new[600:601])
        database.close()
        copies.append(undo(named, work.state, confirm=agree).copy)
        if turn == 1:
            assert copies[0]
            copies[0].unlink()  # as one does with an old copy

    assert [copy and copy.name for copy in copies] == [f"undone-000{n}.db" for n in (1, 2, 3)]
    assert copies[1] and stores.read(copies[1])[0][-1] == 602


def test_an_undo_that_failed_is_not_taken_up_again_unasked(
    cmem: Path, made: Made, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emberd.migrate.sqlite.PATIENCE_S", 1.0)
    named = work.open(cmem)
    migrate_all([named], work.target(), work.embedder, work.state)
    database = stores.connect(cmem / "memories.db")
    stores.add(database, [601], [made.texts[600]], made.new[600:601])
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError):
        undo(named, work.state, confirm=agree)
    database.execute("ROLLBACK")
    database.close()

    assert recover(named, work.state) is None
    assert stores.read(cmem / "memories.db")[0][-1] == 601
    assert status(named, work.state)["copies"] == []
    assert undo(named, work.state, confirm=agree).copy  # now that it is asked for again


def test_files_of_somebody_beside_the_backups_do_not_count(cmem: Path, work: Work) -> None:
    beside = cmem / "memories.db.emberd"
    beside.mkdir()
    (beside / "backup-mine.db").touch()
    (beside / "undone-old.db").touch()

    migrate_all([work.open(cmem)], work.target(), work.embedder, work.state)

    assert (beside / "backup-0001.db").exists()


def test_two_migrations_keep_two_backups_and_are_undone_one_by_one(
    cmem: Path, made: Made, work: Work
) -> None:
    named = work.open(cmem)
    migrate_all([named], work.target("minilm-f32"), work.embedder, work.state)
    migrate_all([named], work.target("minilm"), work.embedder, work.state)
    assert len(status(named, work.state)["backups"]) == 2

    undo(named, work.state, confirm=agree)

    assert stores.cosines(stores.read(cmem / "memories.db")[1], made.new[:300]).min() > 0.9999
    undo(named, work.state, confirm=agree)
    assert np.array_equal(stores.read(cmem / "memories.db")[1], made.old[:300])


def test_without_keep_backup_nothing_is_left(cmem: Path, work: Work) -> None:
    named = work.open(cmem)

    moved = migrate_all(
        [named], work.target(), work.embedder, work.state, options=RunOptions(keep_backup=False)
    )

    assert moved[named.name].backup is None
    assert [path.name for path in (cmem / "memories.db.emberd").iterdir()] == ["lock"]


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run that somebody stopped."""


def stop_after(rows: int) -> Callable[[object], Callable[[int, int], None]]:
    def report(done: int, _total: int) -> None:
        if done >= rows:
            raise Stopped

    return lambda _named: report


def test_a_stopped_run_goes_on_where_it_was_and_embeds_only_what_changed(
    cmem: Path, made: Made, work: Work
) -> None:
    named, target = work.open(cmem), work.target()
    with pytest.raises(Stopped):
        migrate_all(
            [named], target, work.embedder, work.state,
            options=RunOptions(batch=50), progress=stop_after(150),
        )  # fmt: skip
    assert np.array_equal(stores.read(cmem / "memories.db")[1], made.old[:300])
    ready = status(named, work.state)["staged"]["rows"]
    database = stores.connect(cmem / "memories.db")
    database.execute("DELETE FROM memories WHERE id = 5; DELETE FROM vec_memories WHERE rowid = 5")
    database.execute("UPDATE memories SET content = 'changed since' WHERE id = 7")
    stores.add(database, [900], ["written since"], made.old[900:901])
    database.close()

    again = work.open(cmem)  # as another process would
    moved = migrate_all([again], target, work.embedder, work.state)[named.name]

    assert 150 <= ready < 300
    assert moved.embedded == 300 - ready + 2  # the changed one, the new one; nothing twice
    keys, vectors = stores.read(cmem / "memories.db")
    assert keys == [*range(1, 5), *range(6, 301), 900]
    fresh = embed(work.embedder, ["changed since", "written since"], target)
    assert stores.cosines(vectors[[5, -1]], fresh).min() > 0.9999


def test_another_target_begins_again(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    with pytest.raises(Stopped):
        migrate_all([named], work.target(), work.embedder, work.state, progress=stop_after(256))

    moved = migrate_all([named], work.target("minilm"), work.embedder, work.state)[named.name]

    assert moved.embedded == 300


def test_two_runs_at_once_are_kept_apart(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    with (
        Workplace(named.store, work.state).locked(),
        pytest.raises(StoreBusyError, match="under way"),
    ):
        migrate_all([named], work.target(), work.embedder, work.state)


@pytest.fixture
def two(cmem: Path, tmp_path: Path) -> tuple[Path, Path]:
    return cmem, Path(shutil.copytree(cmem, tmp_path / "other"))


def test_several_stores_move_together_with_what_has_to_go_along(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    named = [work.open(folder) for folder in two]
    seen: list[bool] = []

    def look() -> None:
        seen.extend(one.store.stamp() is None for one in named)  # nothing is committed yet

    file = tmp_path / "file"
    migrate_all(named, work.target(), work.embedder, work.state, participant=Beside(file, look))

    assert seen == [True, True]
    assert file.read_text() == "new"
    for folder in two:
        vectors = stores.read(folder / "memories.db")[1]
        assert stores.cosines(vectors, made.new[:300]).min() > 0.9999


def still_old(folder: Path, made: Made, work: Work) -> None:
    assert np.array_equal(stores.read(folder / "memories.db")[1], made.old[:300])
    assert config_of(folder) == UNCHANGED
    assert work.open(folder).store.stamp() is None
    assert status(work.open(folder), work.state)["backups"] == []
    assert StoresFile(work.state).read() == {}


def test_none_moves_when_the_default_cannot(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    along = Beside(tmp_path / "file")
    (tmp_path / "file").write_text("somebody's")

    with pytest.raises(ConfigError, match=r"changed meanwhile, by somebody else\.$"):
        migrate_all(
            [work.open(folder) for folder in two], work.target(), work.embedder, work.state,
            participant=along,
        )  # fmt: skip

    assert (tmp_path / "file").read_text() == "somebody's"
    for folder in two:
        still_old(folder, made, work)


def test_all_is_taken_back_when_the_last_store_cannot_follow(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    named = [work.open(folder) for folder in two]

    def damage() -> None:
        settings = two[1] / "config.json"  # the first one's is written before this one fails
        settings.unlink()
        (two[1] / "config.json").mkdir()

    file = tmp_path / "file"
    with pytest.raises(StoreError, match=r"config.json cannot be read.*Taking it back failed"):
        migrate_all(
            named, work.target(), work.embedder, work.state, participant=Beside(file, damage)
        )

    assert file.read_text() == "old"
    still_old(two[0], made, work)
    assert np.array_equal(stores.read(two[1] / "memories.db")[1], made.old[:300])


def test_a_store_that_is_not_right_afterwards_is_restored(
    cmem: Path, made: Made, work: Work
) -> None:
    """The model changes its mind between staging and verification: 4-bit where full was said."""

    class Fickle:
        staged = 0

        def submit(self, texts, **options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN202
            self.staged += len(texts)
            wrong = {**options, "model": "minilm", "fingerprint": None}
            return work.embedder.submit(texts, **(options if self.staged > 300 else wrong))

        def release(self, model: str) -> None:
            del model

    with pytest.raises(MigrationError, match="embedded again"):
        migrate_all([work.open(cmem)], work.target(), Fickle(), work.state)

    still_old(cmem, made, work)


class _Meanwhile:
    """An embedder that does something else once all rows are staged."""

    def __init__(self, work: Work, then: Callable[[], dict[str, object]]) -> None:
        self._work = work
        self._then = then
        self._asked = 0

    def submit(self, texts, **options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN202
        self._asked += len(texts)
        changed = self._then() if self._asked > ROWS else {}
        return self._work.embedder.submit(texts, **{**options, **changed})

    def release(self, model: str) -> None:
        del model


def test_rows_written_before_it_is_taken_back_are_in_a_copy(
    cmem: Path, made: Made, work: Work
) -> None:
    def write_and_turn_wrong() -> dict[str, object]:
        database = stores.connect(cmem / "memories.db")
        stores.add(database, [601], [made.texts[600]], made.new[600:601])
        database.close()
        return {"model": "minilm", "fingerprint": None}

    with pytest.raises(MigrationError, match=r"embedded again.*meanwhile is in .*undone-0001.db"):
        migrate_all(
            [work.open(cmem)], work.target(), _Meanwhile(work, write_and_turn_wrong), work.state
        )

    still_old(cmem, made, work)
    copy = cmem / "memories.db.emberd" / "undone-0001.db"
    assert stores.read(copy)[0] == [*range(1, 301), 601]
    assert status(work.open(cmem), work.state)["copies"] == [str(copy)]


def test_a_server_that_is_gone_says_nothing_against_the_store(
    cmem: Path, made: Made, work: Work
) -> None:
    def leave() -> dict[str, object]:
        raise NoServerError("No emberd server is running.")

    named = work.open(cmem)
    moved = migrate_all([named], work.target(), _Meanwhile(work, leave), work.state)[named.name]

    assert (moved.lowest_cosine, moved.unverified) == (None, "No emberd server is running.")
    assert stores.cosines(stores.read(cmem / "memories.db")[1], made.new[:300]).min() > 0.9999
    assert moved.backup and Path(moved.backup).exists()
    assert "No emberd server is running" in migrated_sentences(named, moved, "minilm-f32", "minilm")


def test_rows_that_are_deleted_meanwhile_are_counted(cmem: Path, work: Work) -> None:
    def delete() -> None:
        database = stores.connect(cmem / "memories.db")
        database.execute("DELETE FROM vec_memories WHERE rowid < 4")
        database.close()

    class Deleting(CmemStore):
        """Somebody deletes rows as soon as the swap is through."""

        @contextmanager
        def replacing(self) -> Iterator[Replacement]:
            with super().replacing() as replacement:
                yield replacement
            if self.stamp():
                delete()

    named = replace(work.open(cmem), store=Deleting(cmem))
    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    assert (moved.rows, moved.gone) == (300, 3)
    assert "3 of these rows no longer exist" in migrated_sentences(named, moved, "a", "a")


def test_rows_of_the_old_model_that_come_during_the_check_are_counted(
    cmem: Path, made: Made, work: Work
) -> None:
    class Writing(CmemStore):
        """Somebody writes while it is verified."""

        def search(self, vector: bytes, count: int) -> Sequence[Key]:
            database = stores.connect(cmem / "memories.db")
            if not database.execute("SELECT count(*) FROM memories WHERE id = 901").get:
                stores.add(database, [901], made.texts[900:901], made.old[900:901])
            database.close()
            return super().search(vector, count)

    named = replace(work.open(cmem), store=Writing(cmem))
    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    assert (moved.rows, moved.strays) == (300, 1)


def test_a_row_that_comes_and_goes_during_the_check_is_no_flaw(
    cmem: Path, made: Made, work: Work
) -> None:
    class Fleeting(CmemStore):
        """Once it is swapped, somebody writes a row before it is counted and deletes it after."""

        def inspect(self) -> Shape:
            if not self.stamp():
                return super().inspect()
            database = stores.connect(cmem / "memories.db")
            stores.add(database, [901], made.texts[900:901], made.new[900:901])
            shape = super().inspect()
            database.execute("DELETE FROM vec_memories WHERE rowid = 901")
            database.execute("DELETE FROM memories WHERE id = 901")
            database.close()
            return shape

    named = replace(work.open(cmem), store=Fleeting(cmem))
    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    assert (moved.rows, moved.strays, moved.gone) == (300, 0, 0)


def test_an_interrupt_just_after_the_commit_takes_all_back(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    class Interrupted(CmemStore):
        """Ctrl-C between the COMMIT and whoever notes it."""

        @contextmanager
        def replacing(self) -> Iterator[Replacement]:
            with super().replacing() as replacement:
                commit = replacement.commit

                def interrupted() -> None:
                    commit()
                    raise KeyboardInterrupt

                replacement.commit = interrupted  # type: ignore[method-assign]
                yield replacement

    named = [work.open(two[0]), replace(work.open(two[1]), store=Interrupted(two[1]))]
    file = tmp_path / "file"

    with pytest.raises(KeyboardInterrupt):
        migrate_all(named, work.target(), work.embedder, work.state, participant=Beside(file))

    for folder in two:
        still_old(folder, made, work)
    assert file.read_text() == "old"


def test_an_interrupt_once_all_is_committed_leaves_rows_that_are_written_by_then(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    class Interrupted(CmemStore):
        """Ctrl-C while the store is verified, to which somebody has written."""

        def inspect(self) -> Shape:
            if self.stamp():
                database = stores.connect(self.path)
                stores.add(database, [901], made.texts[900:901], made.new[900:901])
                database.close()
                raise KeyboardInterrupt
            return super().inspect()

    named = [work.open(two[0]), replace(work.open(two[1]), store=Interrupted(two[1]))]
    file = tmp_path / "file"

    with pytest.raises(KeyboardInterrupt):
        migrate_all(named, work.target(), work.embedder, work.state, participant=Beside(file))
    said = recover(work.open(two[0]), work.state)

    assert said and "is finished" in said
    assert file.read_text() == "new"
    for folder in two:
        assert config_of(folder)["embedding"]["model"] == "minilm-f32"  # type: ignore[index]
        assert not status(work.open(folder), work.state)["copies"]
    assert stores.read(two[1] / "memories.db")[0][-1] == 901


class Died(BaseException):
    """The end of the process: `swapping` and `staging` do nothing about it."""


def die_after(commits: int, named: list[StoreRef], work: Work, along: Beside | None = None) -> None:
    """Do what `migrate_all` does, to the moment after so many commits."""
    joint = joint_run(named, along)
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
        assert "taken back" in said
        assert along.edit.file.read_text() == "old"
        for folder in two:
            still_old(folder, made, work)
    else:
        assert "is finished" in said
        assert along.edit.file.read_text() == "new"
        for folder in two:
            assert config_of(folder)["embedding"]["model"] == "minilm-f32"  # type: ignore[index]
            assert len(status(work.open(folder), work.state)["backups"]) == 1


def test_a_file_that_somebody_edited_since_is_left_alone(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    along = Beside(tmp_path / "file")
    die_after(1, [work.open(folder) for folder in two], work, along)
    along.edit.file.write_text("somebody's")

    said = recover(work.open(two[0]), work.state)

    assert said and f"{along.edit.file} was edited since and is left alone" in said
    assert along.edit.file.read_text() == "somebody's"
    for folder in two:
        still_old(folder, made, work)


def test_taking_back_that_was_killed_goes_on_backwards(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    named = [work.open(folder) for folder in two]
    die_after(2, named, work)
    Workplace(named[0].store, work.state).mark()  # as far as it came

    said = recover(named[1], work.state)

    assert said and "taken back" in said
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

    with pytest.raises(StoreError, match="a and b lie in one file") as caught:
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

    assert "is finished" in (recover(a, work.state) or "")  # b's have not thrown it away
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
