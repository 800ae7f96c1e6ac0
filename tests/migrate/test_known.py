"""Stores by name or path: what is pointed at is the configured store, however it is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emberd.config.load import Config, load_config
from emberd.errors import NotAStoreError
from emberd.migrate.check import whose
from emberd.migrate.known import find
from emberd.spaces.stores import KnownStore, StoresFile
from emberd.stores.base import part_of
from tests.migrate import stores
from tests.serving import clean_environ

Configure = Callable[[str], Config]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write a config file beside the stores of the test, and read it."""

    def written(text: str) -> Config:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        (home / "config.yaml").write_text(text)
        return load_config(environ=clean_environ(home))

    return written


@pytest.fixture
def memories(tmp_path: Path) -> Path:
    return stores.make_cmem(tmp_path / "cmem", ["text"], np.ones((1, 8), "<f4"))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A database with two vec0 tables."""
    path = tmp_path / "two.db"
    database = stores.connect(path)
    for table in "ab":
        database.execute(f"CREATE VIRTUAL TABLE {table} USING vec0(e float[3], +body text)")
    database.close()
    return path


def test_a_folder_and_the_file_in_it_are_one_store(
    tmp_path: Path, memories: Path, configure: Configure
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(memories)
    for said in (memories.parent, memories):
        config = configure(f"stores: {{broken: {{path: x, kind: y}}, notes: {{path: {said}}}}}")

        found = [find(config, str(path)).name for path in (memories.parent, memories, link)]

        assert found == ["notes"] * 3


def test_another_table_of_the_file_is_another_store(two: Path, configure: Configure) -> None:
    config = configure(f"stores: {{notes: {{path: {two}, options: {{table: a, text: a.body}}}}}}")

    other = find(config, str(two), options={"table": "b"})
    same = [
        find(config, str(two), options=options)
        for options in ({}, {"table": "a"}, {"text": "a.body"})
    ]

    assert (other.name, part_of(other.store), other.options) == (str(two), "b", {"table": "b"})
    assert [each.name for each in same] == ["notes"] * 3


def test_of_several_configured_stores_in_a_file_none_is_taken_unnamed(
    two: Path, configure: Configure
) -> None:
    stores = ", ".join(f"{t}1: {{path: {two}, options: {{table: {t}}}}}" for t in "ab")
    config = configure(f"stores: {{{stores}}}")

    with pytest.raises(NotAStoreError, match="holds several configured stores: a1, b1") as caught:
        find(config, str(two))

    assert "name" in (caught.value.hint or "")
    assert find(config, str(two), options={"table": "b"}).name == "b1"


def test_what_is_noted_of_another_path_is_not_said_of_this_one(
    memories: Path, configure: Configure
) -> None:
    config = configure(f"stores: {{notes: {{path: {memories.parent}}}}}")
    noted = StoresFile(config.homes.state)
    of_old = KnownStore(path="/before/notes.db", kind="cmem", model="mpnet", fingerprint="aa")
    of_now = KnownStore(path=str(memories), kind="cmem", model="minilm", fingerprint="bb")
    noted.put("notes", of_old)
    before = whose(config, find(config, "notes"))
    noted.put("notes", of_now)

    assert before is None
    assert whose(config, find(config, "notes")) == of_now
