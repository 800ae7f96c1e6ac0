"""A store looked at after the swap, while others write or the model is wrong or gone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.cli.migrate_report import migrated_sentences
from emberd.errors import MigrationError, NoServerError
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.status import status
from emberd.migrate.turns import IN_FLIGHT
from emberd.stores.base import Key, Replacement, Shape
from emberd.stores.sqlite.cmem import CmemStore
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import ROWS, Made, Work, still_old


def test_a_store_that_is_not_right_afterwards_is_restored(
    cmem: Path, made: Made, work: Work
) -> None:
    """The model changes between staging and verification: 4-bit instead of full precision."""

    class Fickle:
        at_once = IN_FLIGHT
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

    at_once = IN_FLIGHT

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
        stores.add(database, [601], [made.texts[300]], made.new[300:301])
        database.close()
        return {"model": "minilm", "fingerprint": None}

    with pytest.raises(MigrationError, match=r"embedded again.*is in .*undone-0001.db"):
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
    assert cosines(stores.read(cmem / "memories.db")[1], made.new[:300]).min() > 0.9999
    assert moved.backup and Path(moved.backup).exists()
    assert "No emberd server is running" in migrated_sentences(named, moved, "minilm-f32", "minilm")


@pytest.mark.slow
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


@pytest.mark.slow
def test_rows_of_the_old_model_that_come_during_the_check_are_counted(
    cmem: Path, made: Made, work: Work
) -> None:
    class Writing(CmemStore):
        """Somebody writes while it is verified."""

        def search(self, vector: bytes, count: int) -> Sequence[Key]:
            database = stores.connect(cmem / "memories.db")
            if not database.execute("SELECT count(*) FROM memories WHERE id = 901").get:
                stores.add(database, [901], made.texts[300:301], made.old[300:301])
            database.close()
            return super().search(vector, count)

    named = replace(work.open(cmem), store=Writing(cmem))
    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    assert (moved.rows, moved.strays) == (300, 1)


@pytest.mark.slow
def test_a_row_that_comes_and_goes_during_the_check_is_no_flaw(
    cmem: Path, made: Made, work: Work
) -> None:
    class Fleeting(CmemStore):
        """Once it is swapped, somebody writes a row before it is counted and deletes it after."""

        def inspect(self) -> Shape:
            if not self.stamp():
                return super().inspect()
            database = stores.connect(cmem / "memories.db")
            stores.add(database, [901], made.texts[300:301], made.new[300:301])
            shape = super().inspect()
            database.execute("DELETE FROM vec_memories WHERE rowid = 901")
            database.execute("DELETE FROM memories WHERE id = 901")
            database.close()
            return shape

    named = replace(work.open(cmem), store=Fleeting(cmem))
    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    assert (moved.rows, moved.strays, moved.gone) == (300, 0, 0)
