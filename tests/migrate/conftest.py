"""Texts with real vectors of two precisions, and one pool that embeds for all tests here."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from emberd.config.edit import Edit
from emberd.config.load import Config, load_config
from emberd.migrate.embedding import PoolEmbedder, Target, find_target
from emberd.migrate.known import find
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.spaces.stores import StoresFile
from emberd.vectors import Matrix
from tests.migrate import stores
from tests.serving import clean_environ

BOTH = 1200
MANY = 5000
ROWS = 300
UNCHANGED = stores.CMEM_CONFIG


@dataclass(frozen=True)
class Made:
    """Texts; `old` are their vectors by 4-bit MiniLM, `new` those of the first by the full one."""

    texts: list[str]
    old: Matrix
    new: Matrix


@dataclass(frozen=True)
class Work:
    """What a test works with: a pool that is loaded already, and a state folder of its own."""

    config: Config
    embedder: PoolEmbedder
    state: Path

    def target(self, name: str = "minilm-f32") -> Target:
        """Return the space of a model."""
        return find_target(self.config, self.embedder, name)

    def open(self, path: Path, **options: str) -> StoreRef:
        """Return the store at a path."""
        return find(self.config, str(path), options=options)


class Beside:
    """A file that changes along with stores, as the config file does; `act` is called then."""

    def __init__(self, file: Path, act: Callable[[], object] = lambda: None) -> None:
        file.write_text("old")
        self.edit = Edit(file, b"old", b"new")
        self._act = act

    def commit(self) -> None:
        """Write it."""
        self.edit.commit()
        self._act()

    def rollback(self) -> None:
        """Write what was there before."""
        self.edit.rollback()


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose models were loaded before."""
    return tmp_path_factory.mktemp("migrate-home")


@pytest.fixture(scope="session")
def made(shared_home: Path) -> Made:
    texts = stores.texts(BOTH)
    old = stores.embed(shared_home, texts, "minilm")
    return Made(texts, old, stores.embed(shared_home, texts, "minilm-f32"))


@pytest.fixture(scope="session")
def many(shared_home: Path, made: Made) -> Made:
    """As `made`, and thousands more that are `old` alone."""
    texts = stores.texts(MANY)
    more = stores.embed(shared_home, texts[BOTH:], "minilm")
    return Made(texts, np.concatenate([made.old, more]), made.new)


@pytest.fixture(scope="session")
def embedder(shared_home: Path) -> Iterator[PoolEmbedder]:
    with PoolEmbedder(load_config(environ=clean_environ(shared_home))) as running:
        yield running


@pytest.fixture
def work(shared_home: Path, embedder: PoolEmbedder, tmp_path: Path) -> Work:
    config = load_config(environ=clean_environ(shared_home))
    return Work(config, embedder, tmp_path / "state")


@pytest.fixture(scope="session")
def originals(
    made: Made, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """Return a folder with a cmem store of the first so many rows, 4-bit; not to be changed."""
    base = tmp_path_factory.mktemp("originals")

    def original(rows: int) -> Path:
        folder = base / str(rows)
        if not folder.exists():
            of: Made = made if rows <= BOTH else request.getfixturevalue("many")
            stores.make_cmem(folder, of.texts[:rows], of.old[:rows])
        return folder

    return original


@pytest.fixture
def cmem(originals: Callable[[int], Path], tmp_path: Path) -> Path:
    """A cmem folder of 300 rows, made by 4-bit MiniLM."""
    return Path(shutil.copytree(originals(ROWS), tmp_path / "cmem"))


@pytest.fixture
def two(cmem: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two such folders."""
    return cmem, Path(shutil.copytree(cmem, tmp_path / "other"))


def config_of(folder: Path) -> object:
    """Return what is in a cmem folder's settings."""
    return json.loads((folder / "config.json").read_text())


def still_old(folder: Path, made: Made, work: Work) -> None:
    """Check that a store is wholly what it was before a migration."""
    assert np.array_equal(stores.read(folder / "memories.db")[1], made.old[:300])
    assert config_of(folder) == UNCHANGED
    assert work.open(folder).store.stamp() is None
    assert status(work.open(folder), work.state)["backups"] == []
    assert StoresFile(work.state).read() == {}
