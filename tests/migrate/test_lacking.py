"""Vectors without a text and texts without a vector: named before, set aside only when asked."""

import json
from pathlib import Path

import numpy as np
import pytest

from emberd.cli.migrate_report import migrated_sentences, plan_sentences
from emberd.errors import StoreRowsError
from emberd.migrate import textless
from emberd.migrate.check import check
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.undo import undo
from emberd.stores.base import Lacking, Store, lacking_of
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import Made, Work

pytestmark = pytest.mark.usefixtures("nobody_writes")

LACKING = (3, 9, 17, 20)  # a text that is NULL, an empty one, one of no characters, none


@pytest.fixture
def holey(tmp_path: Path, made: Made) -> Path:
    """A cmem store of 40 rows; four vectors have no text, the texts 90 and 91 no vector."""
    path = stores.make_cmem(tmp_path / "holey", made.texts[:40], made.old[:40])
    database = stores.connect(path)
    database.execute(
        "UPDATE memories SET content = NULL WHERE id = 3;"
        "UPDATE memories SET content = '' WHERE id = 9;"
        "UPDATE memories SET content = x'ff' WHERE id = 17;"
        "DELETE FROM memories WHERE id = 20;"
        "INSERT INTO memories(id, content) VALUES (90, 'no vector'), (91, 'nor I')"
    )
    database.close()
    return path


def test_they_are_named_before_anything_is_written(holey: Path, work: Work) -> None:
    named = work.open(holey)
    before = named.store.digest()

    with pytest.raises(StoreRowsError, match=r"4 vectors have no text.*\(3, 9, 17, 20\)") as caught:
        plan(named, work.target(), work.embedder, work.state)

    assert caught.value.hint and "--set-aside" in caught.value.hint
    assert named.store.digest() == before
    assert not holey.with_name("memories.db.emberd").exists()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """See `time`."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """See `time`."""
        self.now_s += seconds


def test_a_text_that_comes_while_who_looks_for_it_stands_still_is_found(
    holey: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    looks: list[Lacking] = []

    def looks_and_stands_still(store: Store) -> Lacking:
        looks.append(lacking_of(store))
        if len(looks) == 2:
            database = stores.connect(holey)
            database.execute("UPDATE memories SET content = 'late' WHERE id = 3")
            database.close()
            clock.sleep(2 * textless.LACKING_S)
        return looks[-1]

    monkeypatch.setattr(textless, "LACKING_S", 1.0)
    monkeypatch.setattr(textless, "time", clock)
    monkeypatch.setattr(textless, "lacking_of", looks_and_stands_still)

    assert [*textless.lasting_lack(work.open(holey).store).text] == [9, 17, 20]


def test_a_check_names_them(holey: Path, work: Work) -> None:
    health = check(work.config, work.open(holey), work.embedder).health

    assert (health.without_text, health.empty_text, health.without_vector) == (1, 3, 2)
    assert (list(health.textless), list(health.vectorless)) == (list(LACKING), [90, 91])


def test_set_aside_they_are_in_a_table_of_the_same_file(
    holey: Path, made: Made, work: Work
) -> None:
    named, target = work.open(holey), work.target()
    texts = stores.ask(holey, "SELECT * FROM memories")

    found = plan(named, target, work.embedder, work.state, set_aside=True)
    moved = migrate_all(
        [named], target, work.embedder, work.state, options=RunOptions(set_aside=True)
    )[named.name]

    keys, vectors = stores.read(holey)
    kept = [key for key in range(1, 41) if key not in LACKING]
    assert keys == kept
    assert cosines(vectors, made.new[[key - 1 for key in kept]]).min() > 0.9999
    assert stores.ask(holey, "SELECT * FROM memories") == texts
    aside = stores.ask(
        holey, 'SELECT key, "column", value, space, migration, vectors FROM emberd_set_aside'
    )
    stamp = named.store.stamp()
    assert stamp
    assert sorted(aside) == [
        (key, "embedding", made.old[key - 1].tobytes(), None, stamp.migration, "vec_memories")
        for key in LACKING
    ]
    assert "4 vectors have no text (3, 9, 17, 20)" in plan_sentences(named, found)
    assert "2 texts have no vector (90, 91)" in plan_sentences(named, found)
    assert (moved.rows, moved.set_aside, moved.strays, moved.gone) == (36, 4, 0, 0)
    said = migrated_sentences(named, moved, "minilm-f32", "minilm-f32")
    assert "4 vectors without a text" in said
    assert f"the table emberd_set_aside of {holey}." in said


@pytest.mark.slow
def test_an_undo_brings_them_back(holey: Path, made: Made, work: Work) -> None:
    named = work.open(holey)
    migrate_all(
        [named], work.target(), work.embedder, work.state, options=RunOptions(set_aside=True)
    )

    undo(named, work.state, confirm=lambda _note, _changed: None)

    keys, vectors = stores.read(holey)
    assert keys == list(range(1, 41))
    assert np.array_equal(vectors, made.old[:40])
    assert not stores.ask(holey, "SELECT name FROM sqlite_master WHERE name = 'emberd_set_aside'")


def test_whole_rows_are_set_aside_and_it_is_said_whose_they_were(
    tmp_path: Path, made: Made, work: Work
) -> None:
    """Of a table with columns of its own; the second time its space is known by the stamp."""
    path = tmp_path / "own.db"
    database = stores.connect(path)
    database.execute(
        "CREATE VIRTUAL TABLE v USING vec0(id TEXT PRIMARY KEY, user text partition key,"
        " e float[384], weight float, +body text, +raw blob)"
    )
    for at, body in enumerate([*made.texts[:10], None, ""]):
        row = (f"k'{at}", f"u{at % 2}", made.old[at].tobytes(), at / 7, body, bytes([at]))
        database.execute("INSERT INTO v VALUES (?, ?, ?, ?, ?, ?)", row)
    named = work.open(path)
    migrate_all(
        [named], work.target(), work.embedder, work.state, options=RunOptions(set_aside=True)
    )
    database.execute("UPDATE v SET body = NULL WHERE id = 'k''4'")
    migrate_all(
        [named],
        work.target("minilm"),
        work.embedder,
        work.state,
        options=RunOptions(set_aside=True),
    )

    aside = list(database.execute('SELECT key, "column", value, space FROM emberd_set_aside'))
    assert len(aside) == 3 * 5
    first = {column: value for key, column, value, _ in aside if key == "k'10"}
    assert first == {
        "user": "u0", "e": made.old[10].tobytes(), "weight": 10 / 7, "body": None, "raw": b"\n",
    }  # fmt: skip
    spaces = {key: space and json.loads(space)["model"] for key, _, _, space in aside}
    assert spaces == {"k'10": None, "k'11": None, "k'4": "minilm-f32"}
    assert database.execute("SELECT count(*) FROM v").get == 9
    database.close()


@pytest.mark.slow
def test_a_vector_that_loses_its_text_meanwhile_is_not_dropped(
    cmem: Path, made: Made, work: Work
) -> None:
    """After the plan, and before the lock."""
    named, target = work.open(cmem), work.target()
    plan(named, target, work.embedder, work.state)
    database = stores.connect(cmem / "memories.db")
    database.execute("DELETE FROM memories WHERE id = 5")
    database.close()

    with pytest.raises(StoreRowsError, match=r"1 vectors have no text.*\(5\)"):
        migrate_all([named], target, work.embedder, work.state)

    keys, vectors = stores.read(cmem / "memories.db")
    assert len(keys) == 300
    assert np.array_equal(vectors, made.old[:300])
