"""Stores of Chroma: a folder, and a real server."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

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
from emberd.stores.chroma.functions import follower
from tests.migrate.drawn import NEW, TEXTS, DrawingEmbedder, vectors
from tests.migrate.kinds import chroma, chroma_server
from tests.migrate.recipes import CONFIG, blocks, environ_of, shell
from tests.serving import Server, clean_environ, wait_for

OLD = vectors([*TEXTS, "late"], "old")
Either = chroma.Folder | chroma_server.Subject


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chroma_server.Subject]:
    with chroma_server.Subject(tmp_path_factory.mktemp("chroma")) as made:
        yield made


def rows_of(subject: Either) -> list[tuple[Any, str, Any]]:
    keys = [subject.key(at) for at in range(len(TEXTS))]
    return list(zip(keys, TEXTS, OLD, strict=False))


@pytest.fixture(params=["folder", "server"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Either:
    made: Either = (
        chroma.Folder(tmp_path) if request.param == "folder" else request.getfixturevalue("server")
    )
    made.create(rows_of(made))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> chroma.Folder:
    made = chroma.Folder(tmp_path)
    made.create(rows_of(made))
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
    found = dict(subject.session().rows().values())
    wanted = vectors(texts, model)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    return found.keys() == {*texts} and all(
        np.allclose(found[text] / np.linalg.norm(found[text]), each, atol=1e-6)
        for text, each in zip(texts, wanted, strict=True)
    )


def test_the_name_moves_to_a_new_collection_and_back(subject: Either, tmp_path: Path) -> None:
    ref = opened(subject, tmp_path)
    assert (ref.store.kind, ref.store.inspect().rows) == ("chroma", len(TEXTS))
    keys = [row.key for row in ref.store.rows()]
    assert keys == sorted(str(key) for key, _, _ in rows_of(subject))
    assert "no atomic step" in caveats_of(ref.store)[0]

    moved(ref, tmp_path)

    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"
    assert len(status(ref, tmp_path / "state")["backups"]) == 1
    del ref
    assert has(subject, "new")
    with subject.open() as client:
        made = client.get_collection(chroma.NAME)
        assert made.metadata["made_by"] == "a program"
        assert made.configuration_json["hnsw"]["ef_search"] == 77
        assert made.get(ids=[subject.key(3)])["metadatas"] == [{"length": len(TEXTS[3])}]
    subject.session().put("later", "late", OLD[-1])

    taken_back(opened(subject, tmp_path), tmp_path)

    assert has(subject, "old")
    assert "late" in {text for text, _ in subject.copied().values()}
    assert opened(subject, tmp_path).store.stamp() is None


def test_a_stopped_run_goes_on(subject: Either, tmp_path: Path) -> None:
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

    del ref
    assert has(subject, "new")


def test_who_holds_the_old_collection_writes_to_it_and_that_is_carried_over(
    subject: Either, tmp_path: Path
) -> None:
    with subject.open() as client:
        held = client.get_collection(chroma.NAME)  # before the run, as a program has it
        moved(opened(subject, tmp_path), tmp_path)
        key = [str(subject.key(at)) for at in range(3)]
        held.upsert(ids=["later"], documents=["late"], embeddings=OLD[-1:], metadatas=[{"a": 1}])
        held.upsert(ids=[key[0]], documents=["changed"], embeddings=OLD[-1:])
        held.upsert(ids=[key[1]], documents=["not this"], embeddings=OLD[-1:])
        held.delete(ids=[key[2]])
        newer = client.get_collection(chroma.NAME)
        newer.upsert(ids=[key[1]], documents=["newer"], embeddings=OLD[-1:])

        ref = opened(subject, tmp_path)
        assert complete(ref, NEW, DrawingEmbedder(), tmp_path / "state") == 2
        assert complete(ref, NEW, DrawingEmbedder(), tmp_path / "state") == 0
        del ref

    rows = subject.session().rows()
    assert rows["later"][0] == "late"
    assert rows[key[0]][0] == "changed"
    assert rows[key[1]][0] == "newer"
    assert key[2] not in rows
    assert np.allclose(rows["later"][1], vectors(["late"], "new")[0], atol=1e-5) or np.isclose(
        np.linalg.norm(rows["later"][1]), 1.0
    )


def test_a_swap_that_was_stopped_between_its_renames_is_taken_back(
    subject: Either, tmp_path: Path
) -> None:
    ref = opened(subject, tmp_path)
    engine: Any = ref.store.engine  # type: ignore[attr-defined]
    with staging(ref, NEW, DrawingEmbedder(), tmp_path / "state") as staged, swapping(staged):
        (fresh,) = [name for name in engine.names() if "-emberd-" in name]
        engine._renamed(engine.current(), f"{fresh}-old")  # and the process dies
        engine.delete = lambda _collection: None  # a dead process tidies nothing up
    assert engine.current() is None
    assert ref.store.inspect().rows == len(TEXTS)
    assert ref.store.stamp() is None
    del ref, engine, staged

    ref = opened(subject, tmp_path)
    moved(ref, tmp_path)

    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"
    assert len(ref.store.engine.names()) == 2  # type: ignore[attr-defined]
    del ref
    assert has(subject, "new")


def test_a_target_of_another_size(folder: chroma.Folder, tmp_path: Path) -> None:
    folder.create([(key, text, np.ones(3, np.float32)) for key, text, _ in rows_of(folder)])

    moved(opened(folder, tmp_path), tmp_path)

    assert has(folder, "new")


def test_the_model_that_a_collection_records_follows(folder: chroma.Folder, tmp_path: Path) -> None:
    asks = OpenAIEmbeddingFunction(
        api_key_env_var="HOME", api_base="http://127.0.0.1:8767/v1", model_name="old"
    )
    with folder.open() as client:
        client.delete_collection(chroma.NAME)
        made = client.create_collection(chroma.NAME, embedding_function=asks)
        made.add(ids=["a", "b"], documents=TEXTS[:2], embeddings=OLD[:2])
    ref = opened(folder, tmp_path)
    assert any("programs that give no function" in each for each in caveats_of(ref.store))

    moved(ref, tmp_path)

    del ref
    with folder.open() as client:
        kept = client.get_collection(chroma.NAME, embedding_function=None).configuration_json
    recorded = kept["embedding_function"]
    assert (recorded["name"], recorded["config"]["model_name"]) == ("openai", "new")
    assert recorded["config"]["api_base"] == "http://127.0.0.1:8767/v1"


def test_a_function_that_names_no_model_is_not_recorded_again() -> None:
    assert follower({"name": "onnx", "config": {"size": 3}}, "new") is None
    assert follower({"name": "default", "config": {}}, "new").name() == "default"
    assert follower({"type": "legacy"}, "new") is None


def test_another_process_that_has_the_folder_open_is_named_and_has_to_end(
    folder: chroma.Folder, tmp_path: Path
) -> None:
    holding = "import sys, chromadb; held = chromadb.PersistentClient(sys.argv[1])\n"
    holding += "held.list_collections(); print('held', flush=True); input()"
    command = [sys.executable, "-c", holding, str(folder.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"

        said = caveats_of(opened(folder, tmp_path).store)
        with pytest.raises(StoreBusyError, match=f"process {other.pid} ") as refused:
            moved(opened(folder, tmp_path), tmp_path)

        other.communicate("\n")
    assert any(f"process {other.pid} (" in each for each in said)
    assert "End it" in (refused.value.hint or "")
    del refused
    moved(opened(folder, tmp_path), tmp_path)
    assert has(folder, "new")


def test_several_collections_and_wrong_names_are_refused_with_the_names(
    subject: Either, tmp_path: Path
) -> None:
    with subject.open() as client:
        client.create_collection("more")
    config = load_config(environ=clean_environ(tmp_path))
    with pytest.raises(NotAStoreError, match=r"2 collections \(docs, more\), not one"):
        find(config, subject.entry["path"]).store.inspect()
    with pytest.raises(StoreError, match="no collection gone"):
        opened(subject, tmp_path, collection="gone").store.inspect()
    with pytest.raises(StoreKindError, match="no option 'table'"):
        opened(subject, tmp_path, table="x")


def test_a_server_that_is_gone_and_a_library_that_is_missing(
    folder: chroma.Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(environ=clean_environ(tmp_path))
    with pytest.raises(StoreError, match="Chroma cannot be reached") as refused:
        find(config, "http://127.0.0.1:9", kind="chroma").store.inspect()
    assert "Check that the server runs" in (refused.value.hint or "")
    monkeypatch.setitem(sys.modules, "chromadb", None)

    with pytest.raises(StoreKindError, match="chromadb, which is not installed") as missing:
        opened(folder, tmp_path).store.inspect()

    assert "emberd[chroma]" in (missing.value.hint or "")


def test_kinds_are_recognised(subject: Either) -> None:
    place: Any = subject.entry["path"]
    place = place if "://" in place else Path(place)
    assert plugins.load("chroma").recognises(place)
    assert not plugins.load("qdrant").recognises(place)


# -- the recipe, with the command itself -------------------------------------------------------


@pytest.mark.slow
def test_the_recipe_works_as_it_is_written(tmp_path: Path) -> None:
    install, recipe = blocks("chroma.md")[:2]
    assert install == "pip install 'emberd[chroma]'\n"
    home = tmp_path / "home"
    home.mkdir()
    stores = "stores: {notes: {kind: chroma, path: chroma, options: {collection: docs}}}\n"
    look, run, back = recipe.splitlines()
    subject = chroma.Folder(home)
    with Server(home, config=CONFIG + stores) as server:
        made = server.embed(*TEXTS, model="minilm")["embeddings"]
        keys = [subject.key(at) for at in range(len(TEXTS))]
        subject.create(list(zip(keys, TEXTS, np.array(made, "<f4"), strict=True)))

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
