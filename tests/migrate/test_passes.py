"""How often a migration reads a large store, and that the model never waits for it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import pytest

from emberd.migrate import stage
from emberd.migrate.embedding import Embedded, Options
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.store_ref import StoreRef
from emberd.stores.base import Key, Row
from emberd.stores.passes import search_all, watched
from emberd.stores.sqlite.cmem import CmemStore
from tests.migrate import stores
from tests.migrate.drawn import NEW, ROWS, TEXTS, DrawingEmbedder, make_cmem, vectors


class Counting(CmemStore):
    """Notes how its rows are read from the start, and calls `meanwhile` when it is searched."""

    def __init__(self, path: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__(path)
        self.read: list[str] = []
        self._meanwhile = meanwhile

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Note it."""
        if after is None:
            self.read.append("vectors" if vectors else "texts")
        return super().rows(after=after, vectors=vectors)

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Do something first."""
        self._meanwhile()
        return super().search(vector, count)


def add(path: Path, text: str) -> Callable[[], None]:
    """Return a function by which another program adds a row, once."""
    added: list[str] = []

    def act() -> None:
        if not added:
            added.append(text)
            database = stores.connect(path)
            stores.add(database, [900], [text], vectors([text], "old"))
            database.close()

    return act


def migrated(store: CmemStore, embedder: DrawingEmbedder, **options: int) -> int:
    """Migrate a store; return how many rows of others it found."""
    ref = StoreRef(name="store", store=store)
    how = RunOptions(**options)  # type: ignore[arg-type]
    state = store.path.parent / "state"
    return migrate_all([ref], replace(NEW), embedder, state, options=how)["store"].strays


@pytest.fixture
def cmem(tmp_path: Path) -> Path:
    return make_cmem(tmp_path / "cmem")


def test_a_store_that_nobody_writes_to_is_read_once_before_the_swap_and_once_after(
    cmem: Path,
) -> None:
    store = Counting(cmem.parent)

    assert migrated(store, DrawingEmbedder()) == 0

    assert store.read == ["texts", "vectors"]


def test_a_store_that_is_written_to_is_read_again(cmem: Path) -> None:
    store = Counting(cmem.parent, add(cmem, "written during the check"))

    assert migrated(store, DrawingEmbedder(lambda _: None)) == 1

    assert store.read == ["texts", "vectors", "vectors"]


def test_what_is_written_while_texts_are_embedded_is_embedded_before_the_lock(
    cmem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "FEW", 0)
    store, write = Counting(cmem.parent), add(cmem, "written meanwhile")

    def before(texts: Sequence[str]) -> None:
        if TEXTS[-1] in texts:
            write()

    assert migrated(store, DrawingEmbedder(before)) == 0

    assert store.read == ["texts", "texts", "vectors"]
    keys, found = stores.read(cmem)
    assert (found[keys.index(900)] == vectors(["written meanwhile"], "new")).all()


def test_the_model_has_work_while_more_is_read_and_written(
    cmem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one part of the store ends that is read at once, and the next begins."""
    monkeypatch.setattr(stage, "CHUNK", 4)
    asked: list[int] = []
    under_way: list[int] = []

    class Waiting(DrawingEmbedder):
        def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
            asked.append(len(texts))
            done, number = super().submit(texts, **options), len(asked)
            answer = done.result

            def result(timeout: float | None = None) -> Embedded:
                under_way.append(len(asked) - number)
                return answer(timeout)

            done.result = result  # type: ignore[method-assign]
            return done

    migrated(CmemStore(cmem.parent), Waiting(), batch=4)

    batches = ROWS // 4
    assert asked[:batches] == [4] * batches
    assert min(under_way[: batches - 1]) >= 1


def test_a_watched_store_was_written_to_once_somebody_has_committed(cmem: Path) -> None:
    store = CmemStore(cmem.parent)
    with watched(store) as is_written_to:
        list(store.rows())
        assert not is_written_to()
        add(cmem, "by another connection")()
        assert is_written_to()


def test_of_a_kind_that_cannot_tell_anything_may_have_been_written() -> None:
    class Plain:
        def search(self, vector: bytes, count: int) -> Sequence[Key]:
            return [len(vector)] * count

    with watched(Plain()) as is_written_to:  # type: ignore[arg-type]
        assert is_written_to()
    assert search_all(Plain(), [b"ab", b"c"], 2) == [[2, 2], [1, 1]]  # type: ignore[arg-type]
