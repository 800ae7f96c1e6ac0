"""A store as a command names it, and stores that cannot be locked together."""

import shlex
from pathlib import Path

import pytest

from emberd.errors import StoreError
from emberd.migrate.store_ref import StoreRef, require_separate_files
from emberd.stores.sqlite.sqlite_vec import SqliteVecStore


def ref(name: str, path: Path, **options: str) -> StoreRef:
    return StoreRef(name=name, store=SqliteVecStore(path), kind=None, options=options)


def test_a_configured_store_is_named_by_its_name() -> None:
    named = ref("my notes", Path("/stores/notes.db"), text="notes.body")

    assert (named.is_path, named.argument) == (False, "'my notes'")


def test_another_store_is_named_by_path_and_options_as_a_shell_takes_them() -> None:
    named = ref("/my stores/notes.db", Path("/my stores/notes.db"), query="SELECT id, body FROM n")

    assert named.is_path
    words = ["/my stores/notes.db", "-o", "query=SELECT id, body FROM n"]
    assert shlex.split(named.argument) == words


def test_two_stores_in_one_file_are_refused_however_it_is_reached(tmp_path: Path) -> None:
    file, link = tmp_path / "notes.db", tmp_path / "link.db"
    link.symlink_to(file)

    with pytest.raises(StoreError):
        require_separate_files([ref("a", file), ref("b", link)])
    require_separate_files([ref("a", file), ref("b", tmp_path / "other.db")])
