"""A store of float32 becomes one of int8 or bits, and back: all of it, or nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.cli.migrate_report import migrated_sentences, plan_sentences, show_report
from emberd.config.load import load_config
from emberd.dtypes import NUMPY, Dtype
from emberd.errors import StoreKindError
from emberd.migrate.check import check, whose
from emberd.migrate.embedding import PoolEmbedder, Target, find_target
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.known import find
from emberd.migrate.likeness import SAME, likeness
from emberd.migrate.plan import Plan, plan
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.textless import complete
from emberd.migrate.undo import undo
from emberd.migrate.verify import Migrated
from emberd.spaces.compare import compare
from emberd.spaces.fingerprint import of_dtype
from emberd.spaces.lock import LockFile
from emberd.spaces.stores import StoresFile, warnings
from emberd.stores.base import Stamp
from emberd.vectors import Rows, quantize, ranges
from tests.migrate import stores
from tests.migrate.conftest import Work
from tests.serving import clean_environ

ROWS, DIMENSIONS = 40, 64
TEXTS = stores.texts(ROWS)
SMALL: list[Dtype] = ["int8", "ubinary"]
DDL = """CREATE VIRTUAL TABLE "my notes" USING vec0(
  id text primary key, e Float[64] distance_metric=cosine, kind integer, +body text, chunk_size=8
)"""
CHANGED = {
    "int8": DDL.replace("Float[64]", "int8[64]"),
    "ubinary": DDL.replace("Float[64] distance_metric=cosine", "bit[64]"),
}
Migrate = Callable[[Path, Dtype], tuple[Plan, Migrated]]


class Stopped(Exception):  # noqa: N818 - it is no error
    """The run ends here."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dtypes-home")
    (made / "config.yaml").write_text(f"default: old\n{stores.MODELS}")
    return made


@pytest.fixture(scope="module")
def embedder(home: Path) -> Iterator[PoolEmbedder]:
    with PoolEmbedder(load_config(environ=clean_environ(home))) as running:
        yield running


@pytest.fixture
def work(home: Path, embedder: PoolEmbedder, tmp_path: Path) -> Work:
    return Work(load_config(environ=clean_environ(home)), embedder, tmp_path / "state")


@pytest.fixture
def notes(tmp_path: Path, work: Work) -> Path:
    """A store with 40 rows of the model `old`, and columns that must stay."""
    path = tmp_path / "notes.db"
    make(path, DDL, [row.tobytes() for row in embedded(work, "float")])
    return path


def make(path: Path, ddl: str, vectors: list[bytes], constructor: str = "?2") -> None:
    """Make a store of the texts with these vectors."""
    database = stores.connect(path)
    database.execute(ddl)
    rows = [(f"{at:02}", vectors[at], at % 3, TEXTS[at]) for at in range(ROWS)]
    insert = f'INSERT INTO "my notes" VALUES (?1, {constructor}, ?3, ?4)'  # noqa: S608
    with database:
        database.executemany(insert, rows)
    database.close()


def embedded(work: Work, dtype: Dtype, model: str = "old") -> Rows:
    """Return the texts' vectors."""
    return work.embedder.submit(TEXTS, model=model, dtype=dtype).result().vectors


def read(path: Path, dtype: Dtype) -> tuple[str, list[Any], Rows]:
    """Return a store's definition, its other columns, and its vectors."""
    database = stores.connect(path)
    ddl = database.execute("SELECT sql FROM sqlite_master WHERE name = 'my notes'").get
    beside = list(database.execute('SELECT id, kind, body FROM "my notes" ORDER BY id'))
    found = database.execute('SELECT e FROM "my notes" ORDER BY id')
    rows = np.stack([np.frombuffer(vector, NUMPY[dtype]) for (vector,) in found])
    database.close()
    return ddl, beside, rows


def target_of(work: Work, dtype: Dtype, model: str = "old") -> Target:
    return find_target(work.config, work.embedder, model, dtype=dtype)


def move(work: Work, ref: StoreRef, target: Target, **options: Any) -> tuple[Plan, Migrated]:  # noqa: ANN401
    """Plan and run, as the command does."""
    planned = plan(ref, target, work.embedder, work.state)
    done = migrate_all([ref], target, work.embedder, work.state, **options)
    return planned, done[ref.name]


@pytest.mark.parametrize("dtype", SMALL)
def test_vectors_and_their_column_change_and_nothing_else(
    notes: Path, work: Work, dtype: Dtype
) -> None:
    _, before, _ = read(notes, "float")
    ref, target = work.open(notes), target_of(work, dtype)

    planned, moved = move(work, ref, target)

    ddl, beside, vectors = read(notes, dtype)
    assert (ddl, beside) == (CHANGED[dtype], before)
    assert (likeness(vectors, embedded(work, dtype), dtype) >= SAME[dtype]).all()
    shape = ref.store.inspect()
    assert (shape.rows, shape.dimensions, shape.dtype) == (ROWS, DIMENSIONS, dtype)
    assert (moved.rows, moved.strays, moved.unverified) == (ROWS, 0, None)
    assert ref.store.search(vectors[7].tobytes(), 1) == ["07"]
    stamp = ref.store.stamp()
    assert stamp and stamp.dtype == dtype
    plain = target_of(work, "float").fingerprint
    assert stamp.fingerprint == of_dtype(plain, dtype, stamp.step or 0.0)
    assert (stamp.step is not None) == (dtype == "int8")
    noted = StoresFile(work.state).read()[ref.name]
    assert (noted.model, noted.dtype, noted.fingerprint) == ("old", dtype, stamp.fingerprint)
    said = plan_sentences(ref, planned)
    assert f"64 dimensions of {'bit' if dtype == 'ubinary' else 'int8'}." in said
    assert f"takes {target.vector_bytes} bytes instead of 256" in said
    assert "Migrated" in migrated_sentences(ref, moved, "old", "old")


@pytest.mark.parametrize("dtype", SMALL)
def test_what_it_costs_is_measured_before_anything_is_written(
    notes: Path, work: Work, dtype: Dtype
) -> None:
    before = notes.read_bytes()
    ref = work.open(notes)

    planned = plan(ref, target_of(work, dtype), work.embedder, work.state)

    assert planned.loss and (planned.loss.rows, planned.loss.nearest) == (ROWS, 10)
    assert (0.9 if dtype == "int8" else 0.4) < planned.loss.kept <= 1
    assert f"{planned.loss.kept:.1%} stay the same (measured with 40" in plan_sentences(
        ref, planned
    )
    assert notes.read_bytes() == before
    assert not Path(f"{notes}.emberd", "staged.db").exists()


def test_what_becomes_no_smaller_loses_nothing(notes: Path, work: Work) -> None:
    ref = work.open(notes)

    assert plan(ref, target_of(work, "float", "new"), work.embedder, work.state).loss is None


@pytest.mark.parametrize("dtype", SMALL)
def test_a_store_that_is_there_is_left_alone_and_another_dtype_is_not_there(
    notes: Path, work: Work, dtype: Dtype
) -> None:
    ref = work.open(notes)
    move(work, ref, target_of(work, dtype))

    assert plan(ref, target_of(work, dtype), work.embedder, work.state).there
    for other in {*SMALL, "float"} - {dtype}:
        asked = target_of(work, other)
        assert plan(ref, asked, work.embedder, work.state).there is None
    assert ref.wanted == dtype  # what a run without the option keeps


def test_from_int8_to_another_model_to_bits_and_back_to_float(notes: Path, work: Work) -> None:
    ref = work.open(notes)
    steps: list[tuple[Dtype, str]] = [
        ("int8", "old"), ("int8", "new"), ("ubinary", "new"), ("float", "old"),
    ]  # fmt: skip
    for dtype, model in steps:
        move(work, ref, target_of(work, dtype, model))

        vectors = read(notes, dtype)[2]
        assert (likeness(vectors, embedded(work, dtype, model), dtype) >= SAME[dtype]).all()
    assert read(notes, "float")[0] == DDL.replace("Float[64] distance_metric=cosine", "float[64]")


@pytest.mark.parametrize("dtype", SMALL)
def test_a_stopped_run_changes_nothing_and_goes_on(notes: Path, work: Work, dtype: Dtype) -> None:
    ref, target = work.open(notes), target_of(work, dtype)
    before = read(notes, "float")

    def stop(done: int, _total: int) -> None:
        if done >= ROWS:
            raise Stopped

    with pytest.raises(Stopped):
        move(work, ref, target, progress=lambda _ref: stop)

    after = read(notes, "float")
    assert (after[0], after[1]) == (before[0], before[1])
    assert (after[2] == before[2]).all()
    assert status(ref, work.state)["staged"]["rows"] == ROWS
    planned, moved = move(work, ref, target)
    assert (planned.staged, moved.embedded) == (ROWS, 0)
    assert read(notes, dtype)[0] == CHANGED[dtype]


@pytest.mark.parametrize("dtype", SMALL)
def test_an_undo_brings_float_back(notes: Path, work: Work, dtype: Dtype) -> None:
    ref, before = work.open(notes), read(notes, "float")
    move(work, ref, target_of(work, dtype))

    undo(ref, work.state, confirm=lambda _note, _changed: None)

    after = read(notes, "float")
    assert (after[0], after[1]) == (before[0], before[1])
    assert (after[2] == before[2]).all()
    assert ref.store.inspect().dtype == "float"


@pytest.mark.parametrize("dtype", SMALL)
def test_a_text_that_comes_late_gets_a_vector_of_the_stores_dtype(
    notes: Path, work: Work, dtype: Dtype
) -> None:
    """Its row was set aside with a float32 vector, and comes back with a small one."""
    database = stores.connect(notes)
    database.execute("CREATE TABLE bodies(id TEXT, body TEXT)")
    database.execute("INSERT INTO bodies SELECT id, body FROM \"my notes\" WHERE id <> '05'")
    options = {"query": "SELECT id, body FROM bodies"}
    ref, target = work.open(notes, **options), target_of(work, dtype)
    migrate_all([ref], target, work.embedder, work.state, options=RunOptions(set_aside=True))
    assert ref.store.inspect().rows == ROWS - 1
    database.execute("INSERT INTO bodies VALUES ('05', ?)", (TEXTS[5],))
    database.close()

    assert complete(ref, target, work.embedder, work.state) == 1

    vectors = read(notes, dtype)[2]
    assert len(vectors) == ROWS
    assert (likeness(vectors, embedded(work, dtype), dtype) >= SAME[dtype]).all()


@pytest.mark.parametrize("dtype", SMALL)
def test_a_check_knows_whose_they_are_by_stamp_and_by_sample(
    notes: Path, work: Work, dtype: Dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = work.open(notes)
    move(work, ref, target_of(work, dtype))

    stamped = check(work.config, ref, work.embedder)
    sampled = check(work.config, ref, work.embedder, sample=0)

    for report in (stamped, sampled):
        assert (report.verdict, report.model, report.dtype) == ("compatible", "old", dtype)
        assert report.fingerprint == target_of(work, dtype).fingerprint
        assert not report.health.bad_vector
    assert (stamped.judged_by, sampled.judged_by) == ("stamp", "sample")
    noted = whose(work.config, ref)
    assert noted and noted.dtype == dtype
    show_report(sampled, ref)
    assert f"64 dimensions of {'bit' if dtype == 'ubinary' else 'int8'}" in capsys.readouterr().out


def test_int8_of_another_step_is_nobodys(tmp_path: Path, work: Work) -> None:
    """Its vectors have the same directions, but other lengths, so L2 would compare them wrongly."""
    step = target_of(work, "int8").step
    assert step
    small = quantize(embedded(work, "float"), "int8", ranges(1.25 * step, DIMENSIONS))
    path = tmp_path / "notes.db"
    make(path, CHANGED["int8"], [row.tobytes() for row in small], "vec_int8(?2)")

    report = check(work.config, work.open(path), work.embedder)

    assert (report.verdict, report.model) == ("unknown", None)


def test_bits_in_sqlite_vecs_own_order_are_nobodys(tmp_path: Path, work: Work) -> None:
    path = tmp_path / "notes.db"
    vectors = [row.tobytes() for row in embedded(work, "float")]
    make(path, CHANGED["ubinary"], vectors, "vec_quantize_binary(?2)")

    report = check(work.config, work.open(path), work.embedder)

    assert (report.verdict, report.model) == ("unknown", None)


def test_stamps_of_two_dtypes_or_steps_are_two_spaces(work: Work) -> None:
    def stamp(dtype: Dtype) -> Stamp:
        target = target_of(work, dtype)
        return Stamp(
            model=target.model, fingerprint=target.fingerprint, dimensions=target.dimensions,
            probes=target.probes, migration="m", made_at="now", options=target.options,
            dtype=dtype, step=target.step,
        )  # fmt: skip

    plain, small, bits = (stamp(dtype) for dtype in ("float", "int8", "ubinary"))
    again = Stamp.from_json(small.to_json())

    assert again == small
    assert not compare(plain.space, small.space).is_same
    assert not compare(small.space, bits.space).is_same
    assert small.step
    other = replace(small, step=2 * small.step, fingerprint="other")
    assert not compare(small.space, other.space).is_same
    assert Stamp.from_json(small.to_json().replace('"int8"', '"int4"')) is None


def test_a_kind_that_has_only_float_refuses_others(tmp_path: Path, work: Work) -> None:
    vectors = embedded(work, "float")
    path = stores.make_cmem(tmp_path / "cmem", TEXTS, vectors)
    ref = work.open(path.parent)

    assert ref.wanted == "float"
    with pytest.raises(StoreKindError, match="have no vectors of the type int8"):
        assert replace(ref, dtype="int8").wanted


def test_the_server_warns_of_a_small_store_only_when_its_space_is_another(
    notes: Path, work: Work
) -> None:
    ref = work.open(notes)
    move(work, ref, target_of(work, "int8"))
    lock = LockFile(work.config.homes.state).read()
    known = {"notes": StoresFile(work.state).read()[ref.name]}
    old, new = (work.config.catalog.get(name) for name in ("old", "new"))

    assert warnings(known, {"notes": None}, old, lock) == []
    [warning] = warnings(known, {"notes": None}, new, lock)
    assert "migrate run notes --to new --dtype int8" in warning["hint"]


def test_a_table_of_float16_is_recognised_by_its_model_and_keeps_its_type(
    tmp_path: Path, work: Work
) -> None:
    """The kind `blob` has it, and sqlite-vec does not."""
    path = tmp_path / "half.db"
    database = stores.connect(path)
    database.execute("CREATE TABLE n(id INTEGER PRIMARY KEY, body TEXT, v BLOB)")
    rows = zip(TEXTS, (row.tobytes() for row in embedded(work, "float16")), strict=True)
    database.executemany("INSERT INTO n(body, v) VALUES (?, ?)", rows)
    database.close()
    options = {"vector": "n.v", "format": "f16"}
    ref = find(work.config, str(path), kind="blob", options=options)
    report = check(work.config, ref, work.embedder)
    assert (report.verdict, report.model, report.dtype) == ("compatible", "old", "float16")

    planned, moved = move(work, ref, target_of(work, ref.wanted, "new"))

    assert planned.loss is None
    assert moved.strays == 0
    assert (moved.lowest_cosine or 0) > 0.9999
    found = stores.ask(path, "SELECT v FROM n ORDER BY id")
    vectors = np.stack([np.frombuffer(raw, "<f2") for (raw,) in found])
    assert np.array_equal(vectors, embedded(work, "float16", "new"))
    assert check(work.config, ref, work.embedder).judged_by == "stamp"
    assert "64 dimensions of float16." in plan_sentences(ref, planned)
