"""A folder of Parquet files, or one file, is exchanged with a new one, beside writers."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from emberd.config.load import load_config
from emberd.errors import NotAStoreError, StoreError
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.recovery import recover
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.textless import complete_rows
from emberd.migrate.undo import undo
from emberd.stores.base import halved_rows
from emberd.stores.exchange import CALL as OURS
from emberd.stores.exchange import exchange
from emberd.stores.parquet.kept import forget
from emberd.stores.parquet.rewrite import rewrite
from emberd.stores.parquet.swap import ParquetReplacement, swap
from tests.migrate.drawn import DIMENSIONS, NEW, ROWS, TEXTS, DrawingEmbedder, vectors
from tests.migrate.kinds.parquet import Subject
from tests.migrate.recipes import CONFIG, blocks, environ_of, shell
from tests.migrate.refusals import read_only, said_without
from tests.serving import Server, clean_environ, wait_for


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    made = Subject(tmp_path)
    keys = [made.key(at) for at in range(ROWS)]
    made.create(list(zip(keys, TEXTS, vectors(TEXTS, "old"), strict=True)))
    return made


def ref_of(path: Path, **options: str) -> StoreRef:
    config = load_config(environ=clean_environ(path.parent))
    return find(config, str(path), options={"text": "body", **options})


def moved(path: Path, **options: str) -> int:
    ref, state = ref_of(path, **options), path.parent / "state"
    return migrate_all([ref], NEW, DrawingEmbedder(), state)[ref.name].late


def taken_back(path: Path, **options: str) -> None:
    undo(ref_of(path, **options), path.parent / "state", confirm=lambda _note, _changed: None)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*.parquet")}


def plain(name: str) -> str:
    return re.sub(r"\.emberd-[0-9a-f]{8}", "", name)


def kept_by(path: Path) -> Path:
    folders = path.with_name("notes.emberd").glob("kept-*")
    return next(each for each in folders if each.is_dir() and each.suffix != ".base")


def is_of(subject: Subject, model: str) -> bool:
    rows = subject.session().rows()
    wanted = vectors([text for text, _ in rows.values()], model)
    return np.array_equal(np.stack([vector for _, vector in rows.values()]), wanted)


def test_it_is_recognised_moved_and_undone(subject: Subject) -> None:
    path = subject.path
    (path / "_about.txt").write_text("by hand")
    before = contents(path)
    ref = ref_of(path)
    assert (ref.store.kind, ref.store.inspect().rows) == ("parquet", ROWS)

    moved(path)

    assert is_of(subject, "new") and len(subject.session().rows()) == ROWS
    names = contents(path).keys()
    assert not names & before.keys() and {plain(name) for name in names} == before.keys()
    assert (path / "_about.txt").read_text() == "by hand"
    stamp = ref_of(path).store.stamp()
    assert stamp is not None and stamp.fingerprint == "of new"
    taken_back(path)
    assert contents(path) == before


def test_another_process_reads_the_new_vectors_and_all_else_as_it_was(subject: Subject) -> None:
    moved(subject.path)

    code = (
        "import sys, pyarrow.dataset as ds\n"
        "table = ds.dataset(sys.argv[1], partitioning='hive').to_table()\n"
        "print(table.num_rows, table.schema.names, table.schema.metadata[b'made'])\n"
        "file = next(ds.dataset(sys.argv[1]).get_fragments())\n"
        "print(file.metadata.row_group(0).column(0).compression)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(subject.path)], capture_output=True)

    assert done.stdout.decode().splitlines() == [
        f"{ROWS} ['id', 'body', 'vector', 'length', 'part'] b'by a program'",
        "ZSTD",
    ]


def test_what_is_written_up_to_the_exchange_is_kept_and_embedded(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, session = [subject.key(at) for at in range(ROWS)], subject.session()
    fill, commit = ParquetReplacement.fill, ParquetReplacement.commit

    def while_filling(self: ParquetReplacement, *given: object, **named: object) -> None:
        fill(self, *given, **named)  # type: ignore[arg-type]
        session.put(1, "added", vectors(["added"], "old")[0])
        session.put(keys[2], "changed", vectors(["changed"], "old")[0])

    def in_hand(self: ParquetReplacement) -> None:
        if self._stamp is None:
            commit(self)
            return
        with session._opened() as held:  # a program that has opened the old folder
            commit(self)
            session.put(keys[12], "in the new one", vectors(["in the new one"], "new")[0])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(session, "_path", held)
                session.put(2, "too late", vectors(["too late"], "old")[0])
                session.put(keys[11], "late change", vectors(["late change"], "old")[0])
                session.delete(keys[13])

    monkeypatch.setattr(ParquetReplacement, "fill", while_filling)
    monkeypatch.setattr(ParquetReplacement, "commit", in_hand)

    late = moved(subject.path)

    rows = {key: text for key, (text, _) in session.rows().items()}
    assert late >= 4
    assert (rows[1], rows[2], rows[keys[2]]) == ("added", "too late", "changed")
    assert (rows[keys[11]], rows[keys[12]]) == ("late change", "in the new one")
    assert keys[13] not in rows and len(rows) == ROWS + 1
    assert is_of(subject, "new")


def test_who_has_listed_the_old_files_never_reads_a_mixture(subject: Subject) -> None:
    listed = dataset.dataset(subject.path)

    moved(subject.path)

    with pytest.raises(FileNotFoundError):
        listed.to_table()
    moved_once = contents(subject.path).keys()
    moved(subject.path)
    moved_twice = contents(subject.path).keys()
    assert not moved_once & moved_twice and {*map(plain, moved_once)} == {*map(plain, moved_twice)}


def test_a_file_that_is_rewritten_while_it_is_copied_is_in_the_new_folder(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, seen, session = subject.key(5), [], subject.session()

    def while_copying(*given: Any) -> None:  # noqa: ANN401 - as what it wraps
        rewrite(*given)
        session.put(key, "changed", vectors(["changed"], "old")[0])

    def looking(new: Path, place: Path) -> None:
        exchange(new, place)
        seen.append(len(session.rows()))

    monkeypatch.setattr("emberd.stores.parquet.swap.rewrite", while_copying)
    monkeypatch.setattr("emberd.stores.parquet.swap.exchange", looking)

    moved(subject.path)

    assert seen == [ROWS]
    assert session.rows()[key][0] == "changed" and is_of(subject, "new")


def test_what_is_deleted_from_the_backup_later_stays_in_the_store(subject: Subject) -> None:
    moved(subject.path)
    kept = next(each for each in kept_by(subject.path).rglob("part=0/*.parquet"))
    kept.unlink()
    store = ref_of(subject.path).store

    os.utime(kept.parent, (time.time() + 120, time.time() + 120))
    assert not list(halved_rows(store)) and len(subject.session().rows()) == ROWS
    os.utime(kept.parent)  # by a program that had the old folder open
    assert not list(halved_rows(store)) and len(subject.session().rows()) < ROWS


def test_a_vector_that_another_writer_has_undone_is_made_again(subject: Subject) -> None:
    moved(subject.path)
    store, file = ref_of(subject.path).store, next(subject.path.rglob("*.parquet"))
    table = parquet.ParquetFile(file).read()
    listed = table.column("vector").to_pylist()
    listed[3] = None  # as it was read before the row had its vector
    column = table.schema.get_field_index("vector")
    undone = pa.array(listed, table.schema.field(column).type)
    parquet.write_table(table.set_column(column, table.schema.field(column), undone), file)

    late, _ = complete_rows(store, NEW, DrawingEmbedder())

    assert [row.key for row in late] == [table.column("id")[3].as_py()]
    assert not list(halved_rows(store)) and is_of(subject, "new")


def test_rows_without_keys_are_brought_over_by_their_number(tmp_path: Path) -> None:
    path, more = tmp_path / "notes", [*TEXTS[1:], "added", "and another"]
    path.mkdir()
    for texts in (TEXTS, more):
        lists = pa.array(vectors(texts, "old").tolist(), pa.list_(pa.float32()))
        table = pa.table({"body": texts, "vector": lists})
        if texts is TEXTS:
            parquet.write_table(table, path / "a.parquet")
            moved(path)
        else:  # a program that had the old folder open
            parquet.write_table(table, kept_by(path) / "new")
            (kept_by(path) / "new").replace(kept_by(path) / "a.parquet")
    store = ref_of(path).store

    complete_rows(store, NEW, DrawingEmbedder())

    (file,) = path.glob("*.parquet")
    rows = parquet.ParquetFile(file).read().to_pylist()
    assert [row["body"] for row in rows] == more and not list(halved_rows(store))
    assert np.array_equal(np.array([row["vector"] for row in rows], "<f4"), vectors(more, "new"))


@pytest.mark.parametrize("id", [True, False])
def test_one_file_of_lists_without_keys(tmp_path: Path, id: bool) -> None:
    path = tmp_path / "notes.parquet"
    lists = pa.array(vectors(TEXTS, "old").tolist(), pa.list_(pa.float32()))
    table = pa.table({"body": TEXTS, "vector": lists, "other": [float("nan")] * ROWS})
    if id:
        table = table.append_column("id", pa.array([f"n{at}" for at in range(ROWS)]))
    parquet.write_table(table, path, row_group_size=7, compression="gzip")
    before = path.read_bytes()
    keys = [row.key for row in ref_of(path).store.rows()]
    assert keys[1] == ("n1" if id else "notes.parquet:000000000001")

    moved(path)

    with parquet.ParquetFile(path) as file:
        found = file.read().column("vector").to_pylist()
        assert file.num_row_groups == 3
        assert file.metadata.row_group(0).column(0).compression == "GZIP"
    assert np.array_equal(np.array(found, "<f4"), vectors(TEXTS, "new"))
    taken_back(path)
    assert path.read_bytes() == before


def test_rows_without_a_vector_stay_so(subject: Subject) -> None:
    file = next(subject.path.rglob("*.parquet"))
    table = parquet.ParquetFile(file).read()
    nulls = pa.array([None] * len(table), table.schema.field("vector").type)
    parquet.write_table(table.set_column(2, "vector", nulls), file)

    moved(subject.path)

    assert ref_of(subject.path).store.inspect().without_vector == len(table)
    (file,) = file.parent.glob(f"{file.stem}.*.parquet")
    assert parquet.ParquetFile(file).read().column("vector").null_count == len(table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "no"}, "no column no, only: id, body, vector, length"),
        ({"text": "length"}, "length has the type int64, not strings"),
        ({"vector": "body"}, "body has the type string, not lists"),
        ({"id": "vector"}, "not integers or strings"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_to_do(
    subject: Subject, options: dict[str, str], said: str
) -> None:
    with pytest.raises(NotAStoreError, match=said) as refused:
        ref_of(subject.path, **options).store.inspect()

    assert "--option" in (refused.value.hint or "")


def test_other_numbers_and_summaries_are_refused(subject: Subject, tmp_path: Path) -> None:
    doubles = pa.array(vectors(TEXTS, "old").tolist(), pa.list_(pa.float64(), DIMENSIONS))
    parquet.write_table(pa.table({"body": TEXTS, "vector": doubles}), tmp_path / "x.parquet")
    with pytest.raises(NotAStoreError, match="float32"):
        ref_of(tmp_path / "x.parquet").store.inspect()

    (subject.path / "_metadata").write_bytes(b"")
    with (
        pytest.raises(StoreError, match="summarizes the files"),
        ref_of(subject.path).store.replacing(),
    ):
        pass
    (subject.path / "_metadata").rename(subject.path / "_delta_log")
    with pytest.raises(StoreError, match="Delta Lake"), ref_of(subject.path).store.replacing():
        pass


def test_a_backup_that_lacks_a_file_is_not_restored(subject: Subject) -> None:
    moved(subject.path)
    next(kept_by(subject.path).rglob("*.parquet")).unlink()

    with pytest.raises(StoreError, match="is gone"):
        taken_back(subject.path)

    assert is_of(subject, "new")


def test_it_is_checked_where_nothing_may_be_written(subject: Subject) -> None:
    with read_only(subject.path):
        store = ref_of(subject.path).store
        assert len(list(store.rows())) == ROWS and store.stamp() is None
        if os.geteuid():
            with pytest.raises(StoreError, match="cannot be written"), store.replacing():
                pass


def test_without_the_library_it_says_what_to_install(subject: Subject) -> None:
    said = said_without("pyarrow", subject.path, kind="parquet")

    assert b"StoreKindError" in said and b"which is not installed" in said


def test_folders_change_places_also_without_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (OURS, "none of that name"):
        monkeypatch.setattr("emberd.stores.exchange.CALL", call)
        for name in ("a", "b"):
            folder = tmp_path / call / name
            folder.mkdir(parents=True)
            (folder / name).touch()
            (tmp_path / call / f"file-{name}").write_text(name)
        exchange(tmp_path / call / "a", tmp_path / call / "b")
        exchange(tmp_path / call / "file-a", tmp_path / call / "file-b")

        assert (tmp_path / call / "a" / "b").exists() and (tmp_path / call / "b" / "a").exists()
        assert (tmp_path / call / "file-b").read_text() == "a"


def test_what_takes_the_folders_place_in_between_costs_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, place, rename = tmp_path / "kept-1", tmp_path / "notes", Path.rename

    def somebody(self: Path, target: Path) -> Path:
        if self == new:
            (place / "in between").mkdir(parents=True)
        return rename(self, target)

    for folder in (new, place):
        folder.mkdir()
        (folder / folder.name).touch()
    monkeypatch.setattr("emberd.stores.exchange.CALL", "none of that name")
    monkeypatch.setattr(Path, "rename", somebody)

    with pytest.raises(StoreError, match=r"is in .*kept-1\.aside"):
        swap(new, place)
    forget(new)

    assert (tmp_path / "kept-1.aside" / "notes").exists() and not new.exists()


@pytest.mark.parametrize("done", [1, 2])
def test_a_kill_between_two_renames_is_mended_by_whoever_opens_the_store(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    rename = Path.rename
    renamed: list[Path] = []

    def stopping(self: Path, target: Path) -> Path:
        if len(renamed) == done:
            os._exit(9)
        renamed.append(self)
        return rename(self, target)

    child = os.fork()
    if not child:
        monkeypatch.setattr("emberd.stores.exchange.CALL", "none of that name")
        monkeypatch.setattr(Path, "rename", stopping)
        moved(subject.path)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert subject.path.exists() == (done == 2)

    store = ref_of(subject.path).store
    assert is_of(subject, "old" if done == 1 else "new") and store.inspect().rows == ROWS
    recover(ref_of(subject.path), subject.path.parent / "state")
    if done == 1:
        moved(subject.path)
    assert is_of(subject, "new")
    taken_back(subject.path)
    assert is_of(subject, "old")


@pytest.mark.slow
def test_the_recipe_works_as_it_is_written(tmp_path: Path) -> None:
    (block,) = blocks("parquet.md")
    install, look, run, state, back = block.splitlines()
    assert install == 'pip install "emberd[parquet]"'  # it is, from this folder
    home, subject = tmp_path / "home", Subject(tmp_path)
    entry = f"stores: {{notes: {{kind: parquet, path: {subject.path}, options: {{text: body}}}}}}\n"
    with Server(home, config=CONFIG + entry) as server:
        old = np.array(
            [server.embed(text, model="minilm")["embeddings"][0] for text in TEXTS], "<f4"
        )
        keys = [subject.key(at) for at in range(ROWS)]
        subject.create(list(zip(keys, TEXTS, old, strict=True)))
        environ, session = environ_of(home), subject.session()

        assert "compatible" in shell(look, environ, tmp_path)
        shell(run, environ, tmp_path)

        new = np.array(server.embed(TEXTS[5], model="bge-small")["embeddings"][0])
        assert np.allclose(session.rows()[keys[5]][1], new, atol=1e-6)
        assert "bge-small" in shell(state, environ, tmp_path)
        (said,) = wait_for(lambda: server.http.get("/health").json()["warnings"])
        assert "notes holds vectors made by bge-small" in said["message"]
        compared = server.run("compare", "bge-small", "minilm", "--store", "notes")
        assert compared.returncode == 0, compared.stderr
        shell(back, environ, tmp_path)
        assert np.array_equal(session.rows()[keys[5]][1], old[5])
