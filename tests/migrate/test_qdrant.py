"""Stores of Qdrant: a folder of its local mode, and the stand-in for its server."""

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import portalocker
import pytest
from qdrant_client import QdrantClient, models

from emberd.config.load import load_config
from emberd.errors import NotAStoreError, StoreBusyError, StoreError, StoreKindError
from emberd.migrate.embedding import Target
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.stage import staging
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.swap import swapping
from emberd.migrate.textless import complete
from emberd.migrate.undo import undo
from emberd.stores import plugins
from emberd.stores.base import caveats_of
from emberd.stores.qdrant import clients as qdrant_clients
from tests.migrate.drawn import DIMENSIONS, NEW, TEXTS, DrawingEmbedder, vectors
from tests.migrate.kinds import qdrant, qdrant_server
from tests.migrate.recipes import CONFIG, blocks, environ_of, shell
from tests.serving import Server, clean_environ, wait_for

OLD = vectors([*TEXTS, "late"], "old")
KEYS = [qdrant.key(at) for at in range(len(TEXTS))]
EUCLID = models.VectorParams(size=DIMENSIONS, distance=models.Distance.EUCLID)
Either = qdrant.Subject | qdrant_server.Subject


@pytest.fixture(params=[qdrant.Subject, qdrant_server.Subject], ids=["folder", "server"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Either]:
    with request.param(tmp_path) as made:
        made.create(list(zip(KEYS, TEXTS, OLD, strict=False)))
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> qdrant.Subject:
    made = qdrant.Subject(tmp_path)
    made.create(list(zip(KEYS, TEXTS, OLD, strict=False)))
    return made


def opened(subject: Either, tmp_path: Path, **options: str) -> StoreRef:
    config = load_config(environ=clean_environ(tmp_path))
    return find(config, subject.entry["path"], options={**subject.entry["options"], **options})


def moved(ref: StoreRef, tmp_path: Path, target: Target = NEW) -> None:
    migrate_all([ref], target, DrawingEmbedder(), tmp_path / "state")


def taken_back(ref: StoreRef, tmp_path: Path) -> None:
    undo(ref, tmp_path / "state", confirm=lambda _note, _changed: None)


def has(subject: Either, model: str, texts: Sequence[str] = TEXTS) -> bool:
    """Whether a program finds these texts with this model's vectors, of whatever length."""
    rows = subject.session().rows()
    wanted = vectors(texts, model)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = dict(rows.values())
    return found.keys() == {*texts} and all(
        np.allclose(found[text] / np.linalg.norm(found[text]), each, atol=1e-6)
        for text, each in zip(texts, wanted, strict=True)
    )


def test_the_alias_moves_to_a_new_collection_and_back(subject: Either, tmp_path: Path) -> None:
    ref = opened(subject, tmp_path)
    assert (ref.store.kind, ref.store.inspect().rows) == ("qdrant", len(TEXTS))
    keys = [row.key for row in ref.store.rows()]
    assert keys == sorted(KEYS, key=lambda key: (isinstance(key, str), key))
    assert all(isinstance(key, int) or UUID(key) for key in keys)
    assert "KEY" not in ref.name and "secret" not in ref.name

    moved(ref, tmp_path)

    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"
    assert len(status(ref, tmp_path / "state")["backups"]) == 1
    del ref
    assert has(subject, "new")
    session = subject.session()
    session.put(1001, "late", OLD[-1])

    taken_back(opened(subject, tmp_path), tmp_path)

    assert has(subject, "old")
    assert "late" in {text for text, _ in subject.copied().values()}
    assert opened(subject, tmp_path).store.stamp() is None


def test_settings_and_payloads_are_those_of_the_old_collection(
    folder: qdrant.Subject, tmp_path: Path
) -> None:
    with folder._open() as client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it is of use with some options only
            scored = models.TextScoringParams(type=models.TextScoringType.BM25)
            index = models.TextIndexParams(type=models.TextIndexType.TEXT, scoring=scored)
            client.create_payload_index(qdrant.COLLECTION, "text", index)
        before, _ = client.scroll(qdrant.ALIAS, limit=100)

    moved(opened(folder, tmp_path), tmp_path)

    with folder._open() as client:
        info = client.get_collection(qdrant.ALIAS).config
        params = info.params.vectors
        assert isinstance(params, models.VectorParams)
        assert (params.size, params.distance) == (DIMENSIONS, models.Distance.COSINE)
        assert params.hnsw_config is not None and params.hnsw_config.m == 24
        assert (info.metadata or {})["made_by"] == "a program"
        assert client.scroll(qdrant.ALIAS, limit=100)[0] == before
    indexes = qdrant_clients.read_meta(folder.path)["text_indexes"]
    assert len(indexes) == 2


def test_a_stopped_run_goes_on_and_leaves_nothing_else(subject: Either, tmp_path: Path) -> None:
    asked: list[str] = []

    def stop(texts: Sequence[str]) -> None:
        asked.extend(texts)
        if len(asked) > 10:
            raise StoreError("stopped")

    ref = opened(subject, tmp_path)
    with pytest.raises(StoreError, match="stopped"):
        migrate_all([ref], NEW, DrawingEmbedder(stop), tmp_path / "state")
    assert ref.store.stamp() is None

    moved(ref, tmp_path)

    taken_back(ref, tmp_path)
    del ref
    assert has(subject, "old")


def test_what_is_written_to_the_old_collection_is_carried_over(
    subject: Either, tmp_path: Path
) -> None:
    moved(opened(subject, tmp_path), tmp_path)
    opening = subject.session()._opening
    with opening() as client:  # a program that uses the collection's own name, as before
        client.upsert(qdrant.COLLECTION, [qdrant.point(1001, "late", OLD[-1])])
        client.upsert(qdrant.COLLECTION, [qdrant.point(KEYS[0], "changed", OLD[-1])])
        client.upsert(qdrant.COLLECTION, [qdrant.point(KEYS[1], "not this", OLD[-1])])
        client.delete(qdrant.COLLECTION, [KEYS[2]])
        client.upsert(qdrant.ALIAS, [qdrant.point(KEYS[1], "newer", OLD[-1])])

    ref = opened(subject, tmp_path)
    assert complete(ref, NEW, DrawingEmbedder(), tmp_path / "state") == 2
    assert complete(ref, NEW, DrawingEmbedder(), tmp_path / "state") == 0
    del ref

    rows = subject.session().rows()
    assert rows[1001][0] == "late"
    assert rows[KEYS[0]][0] == "changed"
    assert rows[KEYS[1]][0] == "newer"
    assert KEYS[2] not in rows


def test_a_collection_without_an_alias_becomes_one_and_check_says_what_that_takes(
    subject: Either, tmp_path: Path
) -> None:
    with subject.session()._opening() as client:
        alias = models.DeleteAlias(alias_name=qdrant.ALIAS)
        client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=alias)])
        client.create_collection(
            qdrant.ALIAS,
            vectors_config=models.VectorParams(size=8, distance=models.Distance.EUCLID),
        )
        client.upsert(
            qdrant.ALIAS, [qdrant.point(*row) for row in zip(KEYS, TEXTS, OLD, strict=False)]
        )
        client.delete_collection(qdrant.COLLECTION)
    ref = opened(subject, tmp_path)
    assert "Qdrant cannot rename a collection" in caveats_of(ref.store)[0]

    moved(ref, tmp_path)

    assert "Qdrant cannot rename" not in caveats_of(ref.store)[0]
    del ref
    with subject.session()._opening() as client:
        aliases = {each.alias_name for each in client.get_aliases().aliases}
        assert aliases == {qdrant.ALIAS}
    found = dict(subject.session().rows().values())
    assert np.allclose(found[TEXTS[3]], vectors(TEXTS, "new")[3])
    taken_back(opened(subject, tmp_path), tmp_path)
    found = dict(subject.session().rows().values())
    assert np.allclose(found[TEXTS[3]], OLD[3])


def test_a_switch_that_was_stopped_between_its_steps_is_taken_back(
    folder: qdrant.Subject, tmp_path: Path
) -> None:
    with folder._open() as client:  # as above, but only the folder
        client.delete_collection(qdrant.COLLECTION)
        client.create_collection(
            qdrant.ALIAS,
            vectors_config=models.VectorParams(size=8, distance=models.Distance.EUCLID),
        )
        client.upsert(
            qdrant.ALIAS, [qdrant.point(*row) for row in zip(KEYS, TEXTS, OLD, strict=False)]
        )
    ref = opened(folder, tmp_path)
    engine: Any = ref.store.engine  # type: ignore[attr-defined]
    state = tmp_path / "state"
    with staging(ref, NEW, DrawingEmbedder(), state) as staged, swapping(staged):
        # Killed after the first step: the collection is gone, the alias not there yet.
        engine._client.delete_collection(qdrant.ALIAS)
        engine.delete = lambda _collection: None  # a dead process tidies nothing up
    assert engine.current() is None
    assert ref.store.inspect().rows == len(TEXTS)
    del ref, engine, staged

    ref = opened(folder, tmp_path)
    moved(ref, tmp_path)

    assert ref.store.inspect().rows == len(TEXTS)
    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"


def test_named_vectors_others_and_points_without_a_vector_stay(tmp_path: Path) -> None:
    words = models.SparseVector(indices=[3, 7], values=[0.5, 2.0])
    with closing(QdrantClient(path=str(tmp_path / "q"))) as client:
        client.create_collection(
            "docs_v1",
            vectors_config={
                "dense": models.VectorParams(size=8, distance=models.Distance.EUCLID),
                "other": models.VectorParams(size=2, distance=models.Distance.EUCLID),
            },
            sparse_vectors_config={"words": models.SparseVectorParams()},
        )
        points = [
            models.PointStruct(
                id=at,
                vector={"dense": OLD[at].tolist(), "other": [1.0, at], "words": words},
                payload={"body": text},
            )
            for at, text in enumerate(TEXTS)
        ]
        alone = models.PointStruct(id=99, vector={"other": [5.0, 5.0]}, payload={"body": "alone"})
        client.upsert("docs_v1", [*points, alone])
        alias = models.CreateAlias(collection_name="docs_v1", alias_name="docs")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    config = load_config(environ=clean_environ(tmp_path))
    with pytest.raises(NotAStoreError, match="no vector without a name") as refused:
        find(config, str(tmp_path / "q")).store.inspect()
    assert "--option vector=NAME`; it has: 'dense', 'other'" in (refused.value.hint or "")
    del refused  # it keeps the store, and that its folder
    ref = find(config, str(tmp_path / "q"), options={"text": "body", "vector": "dense"})
    assert (ref.store.inspect().rows, ref.store.inspect().without_vector) == (len(TEXTS), 1)

    moved(ref, tmp_path)

    del ref
    with closing(QdrantClient(path=str(tmp_path / "q"))) as client:
        found = {each.id: each for each in client.scroll("docs", limit=99, with_vectors=True)[0]}
    assert len(found) == len(TEXTS) + 1
    assert isinstance(found[99].vector, dict) and set(found[99].vector) == {"other"}
    kept = found[3].vector
    assert isinstance(kept, dict)
    assert (kept["other"], kept["words"]) == ([1.0, 3.0], words)
    assert np.allclose(np.array(kept["dense"]), vectors(TEXTS, "new")[3])


def test_a_folder_that_another_process_holds_is_refused_by_name(
    folder: qdrant.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_clients, "PATIENCE_S", 0.1)
    moved(opened(folder, tmp_path), tmp_path)
    holding = "import sys; from qdrant_client import QdrantClient\n"
    holding += "held = QdrantClient(path=sys.argv[1]); print('held', flush=True); input()"
    command = [sys.executable, "-c", holding, str(folder.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        ref = opened(folder, tmp_path)

        with pytest.raises(StoreBusyError, match=f"held by process {other.pid}") as refused:
            ref.store.inspect()

        assert "End that program" in (refused.value.hint or "")
        stamp = ref.store.stamp()  # which a server reads while a program has the folder
        assert stamp is not None and stamp.model == "new"
        other.communicate("\n")
    assert ref.store.inspect().rows == len(TEXTS)


def test_what_a_program_writes_just_before_the_folder_is_locked_is_seen(
    folder: qdrant.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reads the folder first and locks it afterwards."""
    lock, wrote = portalocker.lock, list[str]()

    def write_first(*given: Any) -> None:  # noqa: ANN401 - portalocker's
        if not wrote:
            wrote.append("late")
            with closing(QdrantClient(path=str(folder.path))) as program:
                program.upsert(qdrant.ALIAS, [qdrant.point(qdrant.key(99), "late", OLD[-1])])
        lock(*given)

    monkeypatch.setattr(portalocker, "lock", write_first)
    user = threading.Event()
    client, _, _ = qdrant_clients.of_folder(folder.path, user)

    assert qdrant.key(99) in qdrant.read(client, qdrant.ALIAS)


def test_a_program_of_the_same_process_lends_its_client(
    folder: qdrant.Subject, tmp_path: Path
) -> None:
    stop, written = threading.Event(), dict[int, str]()
    with folder._open() as client, qdrant_clients.lent(folder.path, client) as turn:

        def write() -> None:
            while not stop.is_set():
                key = 2001 + 2 * (len(written) % 50)
                written[key] = f"written {len(written)}"
                with turn:
                    client.upsert(qdrant.ALIAS, [qdrant.point(key, written[key], OLD[0])])
                stop.wait(0.01)

        writer = threading.Thread(target=write)
        writer.start()
        moved(opened(folder, tmp_path), tmp_path)
        stop.set()
        writer.join()
        ref = opened(folder, tmp_path)
        complete(ref, NEW, DrawingEmbedder(), tmp_path / "state")
        rows = qdrant.read(client, qdrant.ALIAS)

    assert written
    assert {key: rows[key][0] for key in written} == written


def test_a_folder_that_may_only_be_read_is_checked_as_a_copy_and_not_changed(
    folder: qdrant.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / ".lock").unlink(missing_ok=True)
    (folder.path / ".lock").mkdir()  # nobody can open it to write, not even root
    before = sorted(folder.path.rglob("*"))
    ref = opened(folder, tmp_path)

    assert ref.store.inspect().rows == len(TEXTS)
    with pytest.raises(StoreError, match="cannot be written"), ref.store.replacing():
        pass

    assert sorted(folder.path.rglob("*")) == before


def test_several_collections_and_wrong_names_are_refused_with_the_names(
    subject: Either, tmp_path: Path
) -> None:
    with subject.session()._opening() as client:
        client.create_collection("more", vectors_config=EUCLID)
    config = load_config(environ=clean_environ(tmp_path))
    with pytest.raises(NotAStoreError, match=r"2 collections \(docs, more\), not one"):
        find(config, subject.entry["path"]).store.inspect()
    with pytest.raises(StoreError, match="no collection gone"):
        opened(subject, tmp_path, collection="gone").store.inspect()
    with pytest.raises(StoreKindError, match="no option 'table'"):
        opened(subject, tmp_path, table="x")


def test_a_wrong_key_of_the_api_is_said_without_showing_it(tmp_path: Path) -> None:
    with qdrant_server.Subject(tmp_path) as subject:
        subject.entry["path"] = f"{subject.url}?api_key=wrong-one"
        with pytest.raises(StoreError, match="401") as refused:
            opened(subject, tmp_path).store.inspect()

        assert "wrong-one" not in refused.value.message


def test_a_library_that_is_missing_is_named(
    folder: qdrant.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)

    with pytest.raises(StoreKindError, match="qdrant-client, which is not installed") as refused:
        opened(folder, tmp_path).store.inspect()

    assert "emberd[qdrant]" in (refused.value.hint or "")


def test_a_target_of_another_size(folder: qdrant.Subject, tmp_path: Path) -> None:
    old = [(key, text, np.ones(3, np.float32)) for key, text in zip(KEYS, TEXTS, strict=True)]
    folder.create(old)

    moved(opened(folder, tmp_path), tmp_path)

    assert has(folder, "new")


def test_kinds_are_recognised(subject: Either) -> None:
    place: Any = subject.entry["path"]
    place = place if "://" in place else Path(place)
    assert plugins.load("qdrant").recognises(place)
    assert not plugins.load("chroma").recognises(place)


# -- the recipe, with the command itself -------------------------------------------------------


@pytest.mark.slow
def test_the_recipe_works_as_it_is_written(tmp_path: Path) -> None:
    install, recipe = blocks("qdrant.md")[:2]
    assert install == "pip install 'emberd[qdrant]'\n"
    home = tmp_path / "home"
    home.mkdir()
    stores = "stores: {notes: {kind: qdrant, path: qdrant, options: {collection: docs}}}\n"
    look, run, back = recipe.splitlines()
    subject = qdrant.Subject(home)
    with Server(home, config=CONFIG + stores) as server:
        made = server.embed(*TEXTS, model="minilm")["embeddings"]
        rows = zip(KEYS, TEXTS, np.array(made, "<f4"), strict=True)
        subject.create(list(rows))

        environ = environ_of(home)
        assert "compatible" in shell(look, environ)
        shell(run, environ)

        found = dict(subject.session().rows().values())
        answer = server.embed(TEXTS[5], model="bge-small")["embeddings"][0]
        assert np.allclose(found[TEXTS[5]], answer, atol=1e-5)
        (said,) = wait_for(lambda: server.http.get("/health").json()["warnings"])
        assert "notes holds vectors made by bge-small" in said["message"]
        compared = server.run("compare", "bge-small", "minilm", "--store", "notes")
        assert compared.returncode == 0, compared.stderr

        shell(back, environ)
        found = dict(subject.session().rows().values())
        assert np.allclose(found[TEXTS[5]], made[5], atol=1e-5)
