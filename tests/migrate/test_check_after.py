"""What the check after a swap finds, in a store that is made to be wrong or that others use."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.errors import MigrationError, UnavailableError
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.verify import Migrated
from emberd.stores.base import Key, Replacement, Shape, Stamp
from emberd.stores.sqlite.cmem import CmemStore
from tests.migrate import stores
from tests.migrate.drawn import NEW, ROWS, DrawingEmbedder, holds, make_cmem, vectors


class _Store(CmemStore):
    """A store that may do something else once it was migrated."""

    def is_migrated(self) -> bool:
        return self.stamp() is not None


class _OfAnotherSize(_Store):
    def inspect(self) -> Shape:
        shape = super().inspect()
        return replace(shape, dimensions=9) if self.is_migrated() else shape


class _FindingAnother(_Store):
    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        return super().search(vector, count)[1:]


class _Shifted:
    """A replacement that gives each row the vector of the row before it."""

    def __init__(self, inner: Replacement) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        pairs = list(vectors)
        shifted = [(key, pairs[at - 1][1]) for at, (key, _) in enumerate(pairs)]
        self._inner.fill(shifted, dimensions=dimensions, stamp=stamp)


class _Misplacing(_Store):
    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        with super().replacing() as replacement:
            yield _Shifted(replacement)  # type: ignore[misc]


def opened(kind: Callable[[Path], CmemStore], folder: Path) -> StoreRef:
    """Make a store, and open it as this kind."""
    path = make_cmem(folder)
    return StoreRef(name=str(path), store=kind(path))


def migrate(ref: StoreRef, state: Path, embedder: DrawingEmbedder | None = None) -> Migrated:
    return migrate_all([ref], NEW, embedder or DrawingEmbedder(), state)[ref.name]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (_OfAnotherSize, "9 dimensions, not 8"),
        (_FindingAnother, "does not find it"),
        (_Misplacing, f"{ROWS} rows do not have the vectors"),
    ],
)
def test_a_store_that_is_wrong_after_the_swap_is_restored(
    kind: type[CmemStore], found: str, tmp_path: Path
) -> None:
    ref = opened(kind, tmp_path / "store")

    with pytest.raises(MigrationError, match=found):
        migrate(ref, tmp_path / "state")

    assert holds(ref, "old")
    assert ref.store.stamp() is None


def test_a_row_is_found_by_another_with_the_same_vector(tmp_path: Path) -> None:
    path = stores.make_cmem(tmp_path / "store", ["same"] * 3, vectors(["same"] * 3, "old"))
    ref = StoreRef(name=str(path), store=_FindingAnother(path))

    assert migrate(ref, tmp_path / "state").strays == 0


class _WrittenTo(_Store):
    """Somebody writes a row with an old vector as soon as the swap is through."""

    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        with super().replacing() as replacement:
            yield replacement
        if self.is_migrated():
            database = stores.connect(self.path)
            stores.add(database, [99], ["written since"], vectors(["written since"], "old"))
            database.close()


def test_rows_written_since_with_old_vectors_are_counted(tmp_path: Path) -> None:
    ref = opened(_WrittenTo, tmp_path / "store")

    migrated = migrate(ref, tmp_path / "state")

    assert (migrated.rows, migrated.strays, migrated.unverified) == (ROWS, 1, None)
    assert migrated.lowest_cosine == pytest.approx(1.0)
    assert holds(ref, "new")


def test_if_the_model_goes_before_the_last_look_all_rows_written_since_are_counted(
    tmp_path: Path,
) -> None:
    def leave(texts: Sequence[str]) -> None:
        if "written since" in texts:
            raise UnavailableError("The model has gone.")

    ref = opened(_WrittenTo, tmp_path / "store")

    migrated = migrate(ref, tmp_path / "state", DrawingEmbedder(leave))

    assert (migrated.strays, migrated.unverified) == (1, "The model has gone.")
    assert migrated.lowest_cosine is None
    assert holds(ref, "new")
