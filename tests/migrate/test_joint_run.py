"""Migrating stores: what they hold afterwards, continuing after a stop, and all or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.errors import ConfigError, StoreBusyError, StoreError
from emberd.migrate.embedding import embed
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.recovery import recover
from emberd.migrate.status import status
from emberd.migrate.workplace import Workplace
from emberd.spaces.stores import StoresFile
from emberd.stores.base import Replacement, Shape
from emberd.stores.sqlite.cmem import CmemStore
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import UNCHANGED, Beside, Made, Work, config_of, still_old


def test_every_row_has_its_new_vector_and_the_settings_name_the_model(
    cmem: Path, made: Made, work: Work
) -> None:
    named, target = work.open(cmem), work.target()

    moved = migrate_all([named], target, work.embedder, work.state)[named.name]

    keys, vectors = stores.read(cmem / "memories.db")
    assert keys == list(range(1, 301))
    assert cosines(vectors, made.new[:300]).min() > 0.9999
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
    assert cosines(stores.read(path)[1], made.old[:40]).min() > 0.9999
    assert config_of(path.parent) == UNCHANGED | {
        "embedding": {"model": "minilm", "dimensions": 384}
    }


@pytest.mark.slow
def test_a_space_that_is_there_is_seen_by_sample_and_by_stamp(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    by_sample = plan(named, work.target("minilm"), work.embedder, work.state)
    elsewhere = plan(named, work.target(), work.embedder, work.state)
    migrate_all([named], work.target(), work.embedder, work.state)

    by_stamp = plan(named, work.target(), work.embedder, work.state)

    assert by_sample.there and "embedded again and are the same" in by_sample.there
    assert elsewhere.there is None
    assert by_stamp.there and "stamp" in by_stamp.there


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
    stores.add(database, [900], ["written since"], made.old[300:301])
    database.close()

    again = work.open(cmem)  # as another process would
    moved = migrate_all([again], target, work.embedder, work.state)[named.name]

    assert 150 <= ready < 300
    assert moved.embedded == 300 - ready + 2  # the changed one, the new one; nothing twice
    keys, vectors = stores.read(cmem / "memories.db")
    assert keys == [*range(1, 5), *range(6, 301), 900]
    fresh = embed(work.embedder, ["changed since", "written since"], target)
    assert cosines(vectors[[5, -1]], fresh).min() > 0.9999


@pytest.mark.slow
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
        assert cosines(vectors, made.new[:300]).min() > 0.9999


@pytest.mark.slow
def test_none_moves_when_the_default_cannot(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    along = Beside(tmp_path / "file")
    (tmp_path / "file").write_text("somebody's")

    with pytest.raises(ConfigError) as caught:
        migrate_all(
            [work.open(folder) for folder in two], work.target(), work.embedder, work.state,
            participant=along,
        )  # fmt: skip

    assert "Taking it back failed" not in caught.value.message
    assert (tmp_path / "file").read_text() == "somebody's"
    for folder in two:
        still_old(folder, made, work)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_interrupt_once_all_is_committed_leaves_rows_that_are_written_by_then(
    two: tuple[Path, Path], made: Made, work: Work, tmp_path: Path
) -> None:
    class Interrupted(CmemStore):
        """Ctrl-C while the store is verified, to which somebody has written."""

        def inspect(self) -> Shape:
            if self.stamp():
                database = stores.connect(self.path)
                stores.add(database, [901], made.texts[300:301], made.new[300:301])
                database.close()
                raise KeyboardInterrupt
            return super().inspect()

    named = [work.open(two[0]), replace(work.open(two[1]), store=Interrupted(two[1]))]
    file = tmp_path / "file"

    with pytest.raises(KeyboardInterrupt):
        migrate_all(named, work.target(), work.embedder, work.state, participant=Beside(file))
    said = recover(work.open(two[0]), work.state)

    assert said and "Finished a migration to" in said
    assert file.read_text() == "new"
    for folder in two:
        assert config_of(folder)["embedding"]["model"] == "minilm-f32"  # type: ignore[index]
        assert not status(work.open(folder), work.state)["copies"]
    assert stores.read(two[1] / "memories.db")[0][-1] == 901
