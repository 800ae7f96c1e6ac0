"""A collection of the command llm moves with the model that llm asks; llm itself reads it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import llm
import numpy as np
import pytest
import sqlite_utils

from emberd.config.load import load_config
from emberd.errors import NotAStoreError, StoreError, StoreRowsError
from emberd.migrate.embedding import Target
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.known import find
from emberd.migrate.plan import plan
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.undo import undo
from emberd.vectors import Matrix
from tests.migrate.drawn import NEW, TEXTS, DrawingEmbedder, vectors
from tests.migrate.kinds.llm import Given, decode
from tests.migrate.recipes import CONFIG, blocks, environ_of, shell
from tests.serving import Server, clean_environ, wait_for

STORES = "stores: {notes: {kind: llm, path: llm/embeddings.db}}\n"


def given(texts: Sequence[str], model: str) -> Given:
    """Return a model of llm that has the drawn vectors of these texts."""
    made = Given(dict(zip(texts, vectors(texts, model), strict=True)))
    made.model_id = f"emberd/{model}"
    return made


@contextmanager
def by_llm(path: Path, name: str = "notes", model: str = "old") -> Iterator[llm.Collection]:
    """Open a collection with llm's library, to be closed before emberd opens the file."""
    database = sqlite_utils.Database(path)
    yield llm.Collection(name, database, model=given([*TEXTS, "one more"], model))
    database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that llm made, with one collection."""
    file = tmp_path / "embeddings.db"
    with by_llm(file) as collection:
        entries = ((f"n{19 - at}", text, {"at": at}) for at, text in enumerate(TEXTS))
        collection.embed_multi_with_metadata(entries, store=True)
    return file


def opened(path: Path, **options: str) -> StoreRef:
    return find(load_config(environ=clean_environ(path.parent)), str(path), options=options)


def moved(ref: StoreRef, target: Target = NEW, *, set_aside: bool = False) -> None:
    folder = Path(str(ref.store.path)).parent / "state"
    options = RunOptions(set_aside=set_aside)
    migrate_all([ref], target, DrawingEmbedder(), folder, options=options)


def all_of(path: Path, name: str = "notes") -> dict[str, Matrix]:
    """Return the vectors of a collection, by id, read as llm does."""
    database = sqlite_utils.Database(path)
    collection = llm.Collection(name, database, create=False)
    rows = database.query("SELECT * FROM embeddings WHERE collection_id = ?", [collection.id])
    found = {row["id"]: np.array(decode(row["embedding"]), "<f4") for row in rows}
    database.close()
    return found


def rest_of(path: Path) -> list[tuple[object, ...]]:
    database = sqlite_utils.Database(path)
    columns = "collection_id, id, content, content_blob, content_hash, metadata, updated"
    found = database.execute(f"SELECT {columns} FROM embeddings ORDER BY 1, 2").fetchall()  # noqa: S608
    database.close()
    return found


def model_of(path: Path, name: str = "notes") -> str:
    database = sqlite_utils.Database(path)
    found = llm.Collection(name, database, create=False).model_id
    database.close()
    return str(found)


def test_vectors_and_the_name_of_the_model_move_together_and_back(path: Path) -> None:
    before, rest = all_of(path), rest_of(path)
    ref = opened(path)
    assert (ref.store.kind, ref.store.inspect().rows) == ("llm", len(TEXTS))
    assert [row.key for row in ref.store.rows()] == sorted(before)

    moved(ref)

    assert model_of(path) == "emberd/new"
    assert rest_of(path) == rest
    after = {f"n{19 - at}": row for at, row in enumerate(vectors(TEXTS, "new"))}
    found = all_of(path)
    assert found.keys() == after.keys()
    assert all(np.array_equal(found[key], after[key]) for key in after)
    with by_llm(path, model="new") as collection:
        assert collection.similar(TEXTS[3], 1)[0].id == "n16"
        collection.embed("m", "one more", store=True)
    assert opened(path).store.inspect().rows == len(TEXTS) + 1

    undo(ref, path.parent / "state", confirm=lambda _note, _changed: None)

    assert model_of(path) == "emberd/old"
    assert all(np.array_equal(all_of(path)[key], before[key]) for key in before)


def test_another_collection_stays_as_it_is_and_waits(path: Path) -> None:
    with by_llm(path, "other") as collection:
        collection.embed_multi([("n3", TEXTS[0]), ("x", TEXTS[1])], store=True)
    with pytest.raises(NotAStoreError, match=r"2 collections \(notes, other\), not one"):
        opened(path).store.inspect()
    with pytest.raises(NotAStoreError, match="no collection no, only: notes, other"):
        opened(path, collection="no").store.inspect()

    moved(opened(path, collection="notes"))

    assert model_of(path, "other") == "emberd/old"
    assert np.array_equal(all_of(path, "other")["n3"], vectors(TEXTS[:1], "old")[0])
    assert opened(path, collection="other").store.stamp() is None
    with pytest.raises(StoreError, match="belongs to notes, another collection") as refused:
        moved(opened(path, collection="other"))
    assert "--option collection=notes" in (refused.value.hint or "")


def test_texts_that_llm_did_not_keep_leave_the_collection_and_llm_embeds_them_again(
    path: Path,
) -> None:
    with by_llm(path) as collection:
        collection.embed("unkept", "one more")
    ref = opened(path)
    with pytest.raises(StoreRowsError, match=r"1 vectors have no text.*'unkept'"):
        plan(ref, NEW, DrawingEmbedder(), path.parent / "state")

    moved(ref, set_aside=True)

    assert "unkept" not in all_of(path)
    with by_llm(path, model="new") as collection:
        collection.embed_multi([("unkept", "one more"), ("n0", TEXTS[19])])
    found = all_of(path)
    assert np.array_equal(found["unkept"], vectors(["one more"], "new")[0])
    assert len(found) == len(TEXTS) + 1


def test_a_collection_that_llm_made_anew_has_no_stamp(path: Path) -> None:
    ref = opened(path)
    moved(ref)
    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"

    with by_llm(path) as collection:
        collection.delete()  # type: ignore[no-untyped-call]
    with by_llm(path) as collection:
        collection.embed_multi([("a", TEXTS[0]), ("b", TEXTS[1])], store=True)

    assert ref.store.stamp() is None


def test_names_of_another_plugin_have_another_prefix(path: Path) -> None:
    ref = opened(path, prefix="mine-")
    wide = replace(NEW, model="wide")

    moved(ref, wide)

    assert model_of(path) == "mine-wide"


def test_a_database_of_something_else_is_named(tmp_path: Path) -> None:
    database = sqlite_utils.Database(tmp_path / "x.db")
    database.table("embeddings").insert({"id": 1, "embedding": b"x"})
    database.close()
    config = load_config(environ=clean_environ(tmp_path))

    with pytest.raises(NotAStoreError, match="does not have the tables of llm") as refused:
        find(config, str(tmp_path / "x.db"), kind="llm").store.inspect()

    assert "llm collections path" in (refused.value.hint or "")


# -- the recipe, with the command itself -------------------------------------------------------


@pytest.mark.slow
def test_the_recipe_works_as_it_is_written(tmp_path: Path) -> None:
    (block,) = blocks("llm.md")
    install, look, run, search, back = block.splitlines()
    home, site = tmp_path / "home", str(tmp_path / "site")
    environ = environ_of(home) | {
        "LLM_USER_PATH": str(home / "llm"),
        "PYTHONPATH": site,  # where pip installs here
        "PIP_TARGET": site,
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip reads --no-build-isolation from here
    }
    (home / "llm").mkdir(parents=True)
    entries = tmp_path / "entries.csv"
    entries.write_text("id,text\n" + "".join(f"{at},{text}\n" for at, text in enumerate(TEXTS)))
    file = home / "llm" / "embeddings.db"
    with Server(home, config=CONFIG + STORES) as server:
        environ["LLM_EMBERD_URL"] = server.url
        shell(install, environ)
        assert "emberd/bge-small" in shell("llm embed-models", environ)
        shell(f"llm embed-multi notes {entries} -m emberd/minilm --store", environ)

        assert "compatible" in shell(look, environ)
        shell(run, environ)

        assert model_of(file) == "emberd/bge-small"
        answer = server.embed(TEXTS[5], model="bge-small")["embeddings"][0]
        assert np.allclose(all_of(file)["5"], answer, atol=1e-6)
        found = shell(search.replace("how do I undo a migration?", TEXTS[5]), environ)
        assert '"id": "5"' in found.splitlines()[0]
        (said,) = wait_for(lambda: server.http.get("/health").json()["warnings"])
        assert "notes holds vectors made by bge-small" in said["message"]
        compared = server.run("compare", "bge-small", "minilm", "--store", "notes")
        assert compared.returncode == 0, compared.stderr

        shell(back, environ)
        assert model_of(file) == "emberd/minilm"
