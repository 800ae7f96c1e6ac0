"""A table of LanceDB moves as one version, beside writers; LanceDB's client reads it elsewhere."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.config.load import load_config
from emberd.errors import NotAStoreError, StoreBusyError, StoreError
from emberd.migrate.embedding import Target
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.undo import undo
from emberd.stores.base import Stamp
from emberd.stores.plugins import open_store
from tests.migrate.drawn import NEW, ROWS, TEXTS, DrawingEmbedder, vectors
from tests.migrate.kinds.lancedb import Session, Subject
from tests.migrate.recipes import CONFIG, blocks, environ_of, shell
from tests.migrate.refusals import read_only, said_without
from tests.serving import Server, clean_environ, wait_for

STAMP = Stamp(model="x", fingerprint="x", dimensions=8, probes="", migration="x", made_at="")
MANY = [f"text {at}" for at in range(400)]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    made = Subject(tmp_path)
    keys = [made.key(at) for at in range(ROWS)]
    made.create(list(zip(keys, TEXTS, vectors(TEXTS, "old"), strict=True)))
    return made


@pytest.fixture
def session(subject: Subject) -> Iterator[Session]:
    """LanceDB's own client in another process, with the table open all the time."""
    opened = subject.session()
    opened.rows()
    yield opened
    opened.close()


def ref_of(subject: Subject, **options: str) -> StoreRef:
    config = load_config(environ=clean_environ(subject.path.parent))
    return find(config, str(subject.path), options={"text": "body", **options})


def moved(ref: StoreRef, folder: Path, target: Target = NEW, **given: object) -> int:
    embedder = DrawingEmbedder(**given)  # type: ignore[arg-type]
    return migrate_all([ref], target, embedder, folder / "state")[ref.name].late


def is_of(session: Session, model: str, texts: list[str] = TEXTS) -> bool:
    """Whether the client finds the vectors of this model, and every other text's too."""
    rows = session.rows()
    wanted = vectors([text for text, _ in rows.values()], model)
    found = np.stack([vector for _, vector in rows.values()])
    return {text for text, _ in rows.values()} >= {*texts} and np.array_equal(found, wanted)


def test_it_is_recognised_moved_seen_elsewhere_and_undone(
    subject: Subject, session: Session, tmp_path: Path
) -> None:
    ref = ref_of(subject)
    assert (ref.store.kind, ref.store.inspect().rows) == ("lancedb", ROWS)

    moved(ref, tmp_path)

    assert is_of(session, "new")
    assert session.nearest(vectors(TEXTS[3:4], "new")[0], 1) == ["n3"]
    stamp = ref_of(subject).store.stamp()
    assert stamp is not None and (stamp.model, stamp.fingerprint) == ("new", "of new")
    session.put("later", "one more", vectors(["one more"], "new")[0])

    undone = undo(ref, tmp_path / "state", confirm=lambda _note, changed: None)

    assert is_of(session, "old") and not session.is_migrated()
    assert undone.changed and "later" in subject.copied()
    assert status(ref, tmp_path / "state")["backups"] == []


def test_rows_that_are_written_up_to_the_swap_are_kept_and_embedded(
    subject: Subject, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emberd.stores.lancedb.swap import LanceReplacement

    fill = LanceReplacement.fill

    def while_filling(self: LanceReplacement, *given: object, **named: object) -> None:
        fill(self, *given, **named)  # type: ignore[arg-type]
        session.put("late", "a late row", vectors(["a late row"], "old")[0])
        session.put("n3", "changed", vectors(["changed"], "old")[0])
        session.delete("n5")

    monkeypatch.setattr(LanceReplacement, "fill", while_filling)

    late = moved(ref_of(subject), tmp_path)

    kept = [text for text in TEXTS if text not in (TEXTS[3], TEXTS[5])]
    assert late == 2
    assert is_of(session, "new", [*kept, "a late row", "changed"])
    assert len(session.rows()) == ROWS
    monkeypatch.undo()
    undo(ref_of(subject), tmp_path / "state", confirm=lambda _note, _changed: None)
    assert is_of(session, "old", [*kept, "a late row", "changed"])


def test_a_compaction_during_the_swap_ends_the_run_and_nothing_has_changed(
    subject: Subject, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emberd.stores.lancedb.swap import LanceReplacement

    fill = LanceReplacement.fill

    def while_filling(self: LanceReplacement, *given: object, **named: object) -> None:
        fill(self, *given, **named)  # type: ignore[arg-type]
        session.call("compact")

    monkeypatch.setattr(LanceReplacement, "fill", while_filling)

    with pytest.raises(StoreBusyError, match="rewritten meanwhile"):
        moved(ref_of(subject), tmp_path)

    assert is_of(session, "old") and not session.is_migrated()
    monkeypatch.undo()
    moved(ref_of(subject), tmp_path)
    assert is_of(session, "new")


def test_what_a_killed_fill_left_is_deleted_by_the_next(subject: Subject, tmp_path: Path) -> None:
    data = subject.path / "notes.lance" / "data"
    store, before = ref_of(subject).store, {*data.iterdir()}
    with store.replacing() as replacement:
        rows = [row.key for row in replacement.rows()]
        stamp = replace(STAMP, dimensions=8)
        replacement.fill(((key, bytes(32)) for key in rows), dimensions=8, stamp=stamp)
    left = {*data.iterdir()} - before
    assert left

    moved(ref_of(subject), tmp_path)

    assert not left & {*data.iterdir()}


def test_an_index_is_not_used_for_new_vectors_and_is_made_again(tmp_path: Path) -> None:
    subject = Subject(tmp_path)
    keys = [subject.key(at) for at in range(len(MANY))]
    subject.create(list(zip(keys, MANY, vectors(MANY, "old"), strict=True)))
    session = subject.session()
    session.call("index", "IVF_FLAT", 2)
    wanted = vectors(MANY[7:8], "new")[0]

    moved(ref_of(subject), tmp_path)

    assert session.nearest(wanted, 1) == ["n7"]
    assert session.call("indexes") == [["vector_idx", ["vector"], "IvfFlat", len(MANY)]]
    undo(ref_of(subject), tmp_path / "state", confirm=lambda _note, _changed: None)
    assert session.nearest(vectors(MANY[7:8], "old")[0], 1) == ["n7"]
    assert session.call("indexes") == [["vector_idx", ["vector"], "IvfFlat", len(MANY)]]
    session.close()


def test_a_backup_whose_version_is_gone_is_not_restored(
    subject: Subject, session: Session, tmp_path: Path
) -> None:
    moved(ref_of(subject), tmp_path)
    session.call("untag")

    with pytest.raises(StoreError, match="no longer has the tag"):
        undo(ref_of(subject), tmp_path / "state", confirm=lambda _note, _changed: None)

    assert is_of(session, "new")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "no"}, "no table no, only: notes"),
        ({"text": "no"}, "no column no, only: id, body, length, vector"),
        ({"text": "length"}, "length has the type int64, not strings"),
        ({"vector": "body"}, "body has the type string, not lists"),
        ({"id": "vector"}, "not integers or strings"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_to_do(
    subject: Subject, options: dict[str, str], said: str
) -> None:
    with pytest.raises(NotAStoreError, match=said) as refused:
        ref_of(subject, **options).store.inspect()

    assert "--option" in (refused.value.hint or "")


def test_it_is_checked_where_nothing_may_be_written(subject: Subject, tmp_path: Path) -> None:
    with read_only(subject.path):
        store = ref_of(subject).store
        assert len(list(store.rows())) == ROWS
        assert store.stamp() is None and store.lacking().text == []
        if os.geteuid():
            with pytest.raises(StoreError, match="cannot be written"), store.replacing():
                pass


def test_without_the_library_it_says_what_to_install(subject: Subject) -> None:
    said = said_without("lance", subject.path, kind=None)

    assert b"StoreKindError" in said and b"which is not installed" in said


def test_another_size_of_vectors(subject: Subject, session: Session) -> None:
    store = open_store(subject.path, kind="lancedb", options={"text": "body"})
    wide = np.random.default_rng(1).standard_normal((ROWS, 24)).astype("<f4")
    keys = [row.key for row in store.rows()]
    stamp = replace(STAMP, dimensions=24)
    with store.replacing() as replacement:
        given = ((key, wide[int(str(key)[1:])].tobytes()) for key in keys)
        replacement.fill(given, dimensions=24, stamp=stamp)
        replacement.commit()

    assert store.inspect().dimensions == 24
    rows = session.rows()
    assert all(np.array_equal(rows[f"n{at}"][1], wide[at]) for at in range(ROWS))


@pytest.mark.slow
def test_the_recipe_works_as_it_is_written(tmp_path: Path) -> None:
    (block,) = blocks("lancedb.md")
    install, look, run, state, back = block.splitlines()
    assert install == 'pip install "emberd[lancedb]"'  # it is, from this folder
    home = tmp_path / "home"
    subject = Subject(tmp_path)
    path = tmp_path / "notes-db"
    entry = f"stores: {{notes: {{kind: lancedb, path: {path}, options: {{text: body}}}}}}\n"
    with Server(home, config=CONFIG + entry) as server:
        answer = [server.embed(text, model="minilm")["embeddings"][0] for text in TEXTS]
        keys = [subject.key(at) for at in range(ROWS)]
        old = np.array(answer, "<f4")
        subject.create(list(zip(keys, TEXTS, old, strict=True)))
        subject.path.rename(path)
        environ = environ_of(home)

        assert "compatible" in shell(look, environ, tmp_path)
        shell(run, environ, tmp_path)

        session = Session(path)
        new = np.array(server.embed(TEXTS[5], model="bge-small")["embeddings"][0])
        assert np.allclose(session.rows()["n5"][1], new, atol=1e-6)
        assert "bge-small" in shell(state, environ, tmp_path)
        (said,) = wait_for(lambda: server.http.get("/health").json()["warnings"])
        assert "notes holds vectors made by bge-small" in said["message"]
        compared = server.run("compare", "bge-small", "minilm", "--store", "notes")
        assert compared.returncode == 0, compared.stderr
        shell(back, environ, tmp_path)
        assert np.array_equal(session.rows()["n5"][1], old[5])
        session.close()


def test_a_killed_run_goes_on(subject: Subject, session: Session, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(texts: list[str]) -> None:
        if TEXTS[-1] in texts:
            raise Killed

    with pytest.raises(Killed):
        moved(ref_of(subject), tmp_path, before=die)
    assert is_of(session, "old")

    moved(ref_of(subject), tmp_path)

    assert is_of(session, "new")
