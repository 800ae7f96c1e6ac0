"""The folder beside a store, where it cannot be written, and a swap that was not committed."""

from pathlib import Path

import pytest

from emberd.errors import StoreError
from emberd.migrate.notes import Note, now
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import Workplace, settings_of
from emberd.stores.sqlite.cmem import CmemStore
from tests.migrate.drawn import ROWS, holds, make_cmem


@pytest.fixture
def store(tmp_path: Path) -> CmemStore:
    return CmemStore(make_cmem(tmp_path / "store"))


def test_a_file_in_its_place_is_an_error_that_names_it(store: CmemStore, tmp_path: Path) -> None:
    place = Workplace(store, tmp_path / "state")
    place.folder.write_text("mine")

    with pytest.raises(StoreError, match=str(place.folder)) as caught, place.locked():
        pass

    assert caught.value.hint
    assert place.folder.read_text() == "mine"


def test_a_swap_that_was_not_committed_leaves_nothing(store: CmemStore, tmp_path: Path) -> None:
    place = Workplace(store, tmp_path / "state")
    ref = StoreRef(name="notes", store=store)
    note = Note(
        migration="m", at=now(), model="new", dimensions=8, part=store.part, rows=ROWS, digest="",
        name="notes", before=None, after=ref.holding("new", "f", migration="m"), settings=None,
    )  # fmt: skip
    with place.locked():
        place.prepare(note)
        assert place.pending.exists()

        assert place.finish() is None

        assert place.backups() == []
        assert [path.name for path in place.folder.iterdir()] == ["lock"]
        assert place.known("notes") is None
    assert holds(ref, "old")


def test_a_state_folder_that_cannot_be_written_is_named(store: CmemStore, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file in its place")

    with pytest.raises(StoreError, match=str(state)) as caught:
        Workplace(store, state).put_known("notes", None)

    assert caught.value.hint


def test_settings_that_are_not_text_are_named(store: CmemStore) -> None:
    assert store.settings
    store.settings.write_bytes(b'{"embedding": "\xff"}')

    with pytest.raises(StoreError, match=str(store.settings)) as caught:
        settings_of(store, model="new", dimensions=8)

    assert caught.value.hint
