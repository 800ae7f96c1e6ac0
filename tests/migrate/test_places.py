"""Stores on servers: named by a URL whose password is not shown, with a workplace in the state."""

from pathlib import Path

import pytest

from emberd.config.dump import dump
from emberd.config.load import load_config
from emberd.config.paths import is_url, without_password
from emberd.errors import NotAStoreError, StoreKindError
from emberd.spaces.stores import folder_of
from emberd.stores.plugins import open_store

URL = "postgresql://ann:secret@localhost:5432/app?sslmode=disable&password=other"
SHOWN = "postgresql://ann@localhost:5432/app?sslmode=disable"


@pytest.mark.parametrize("place", ["postgresql://x/y", "http://localhost:6333", "HTTPS://x"])
def test_urls_are_told_from_paths(place: str) -> None:
    assert is_url(place)


@pytest.mark.parametrize("place", ["notes.db", "/a/b", "~/x", "C:\\x", "c:/x", "a:b"])
def test_paths_are_told_from_urls(place: str) -> None:
    assert not is_url(place)
    assert without_password(place) == place


def test_a_password_is_not_shown() -> None:
    assert without_password(URL) == SHOWN
    assert without_password(SHOWN) == SHOWN


def test_a_configuration_is_shown_without_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"stores: {{notes: {{path: '{URL}'}}}}\n")
    config = load_config(environ={"EMBERD_HOME": str(tmp_path)})

    assert config.place_of_store("notes") == URL
    assert dump(config).stores["notes"]["path"] == SHOWN


def test_no_kind_for_a_url_is_an_error_without_its_password() -> None:
    with pytest.raises(NotAStoreError) as caught:
        open_store("nosuch://ann:secret@localhost/x", kind=None, options={})

    assert "nosuch://ann@localhost/x is not a store" in caught.value.message


def test_a_kind_of_files_is_not_at_a_url() -> None:
    with pytest.raises(StoreKindError, match="sqlite-vec is not at a URL such as http://localhost"):
        open_store("http://localhost", kind="sqlite-vec", options={})


def test_the_workplace_of_a_store_on_a_server_is_in_the_state_folder(tmp_path: Path) -> None:
    one, other = (folder_of("postgresql://x/y", None, part, tmp_path) for part in ("a", "b"))

    assert one.parent == other.parent == tmp_path / "stores"
    assert one != other
    path = tmp_path / "lance"
    assert folder_of(str(path), path, "", tmp_path) == tmp_path / "lance.emberd"
    assert folder_of(str(path), path, "a/b", tmp_path) == tmp_path / "lance.emberd" / "a%2Fb"
