"""Texts with real vectors of two precisions, and one pool that embeds for all tests here."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from emberd.config.edit import Edit
from emberd.config.load import Config, load_config
from emberd.dtypes import Dtype
from emberd.migrate import swap, textless
from emberd.migrate.embedding import Embedded, PoolEmbedder, Target, embed, find_target
from emberd.migrate.known import find
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.registry.spec import InputType
from emberd.spaces.stores import StoresFile
from emberd.stores import probing
from emberd.vectors import Rows
from tests import compiled
from tests.migrate import stores
from tests.serving import clean_environ

ROWS = 300
SOME = 320  # texts; the first 300 of them are in stores
MOST = 1200
MANY = 5000
PROBE_S = 20.0
UNCHANGED = stores.CMEM_CONFIG
Asked = tuple[str, int | None, InputType | None, Dtype]


@dataclass(frozen=True)
class Made:
    """Texts; `old` are their vectors by 4-bit MiniLM, `new` those of the first by the full one."""

    texts: list[str]
    old: Rows
    new: Rows


@dataclass(frozen=True)
class Work:
    """What a test works with: a pool that is already loaded, and its own state folder."""

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


class Remembering(PoolEmbedder):
    """A pool that embeds no text twice in the same space: most of a migration's time is that.

    It keeps its models, for the next test.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._rows: dict[Asked, dict[str, Rows]] = defaultdict(dict)
        self._fingerprints: dict[Asked, str] = {}

    def submit(
        self,
        texts: Sequence[str],
        *,
        model: str,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        fingerprint: str | None = None,
        dtype: Dtype = "float",
        cache: bool = True,
    ) -> "Future[Embedded]":
        """Embed one batch, or remember it."""
        del cache
        asked = (model, dimensions, input_type, dtype)
        rows, space = self._rows[asked], self._fingerprints.get(asked)
        if texts and space and fingerprint in (None, space) and rows.keys() >= {*texts}:
            remembered: Future[Embedded] = Future()
            remembered.set_result(Embedded(np.stack([rows[text] for text in texts]), space))
            return remembered
        future = super().submit(
            texts,
            model=model,
            dimensions=dimensions,
            input_type=input_type,
            fingerprint=fingerprint,
            dtype=dtype,
        )

        def remember(done: "Future[Embedded]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._fingerprints[asked] = done.result().fingerprint
                rows.update(zip(texts, done.result().vectors, strict=True))

        future.add_done_callback(remember)
        return future

    def release(self, model: str) -> None:
        """Keep it."""
        del model


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose models were loaded before."""
    return tmp_path_factory.mktemp("migrate-home")


@pytest.fixture(scope="session")
def made(shared_home: Path, embedder: PoolEmbedder) -> Made:
    texts, config = stores.texts(SOME), load_config(environ=clean_environ(shared_home))
    old, new = (
        embed(embedder, texts, find_target(config, embedder, name))
        for name in ("minilm", "minilm-f32")
    )
    return Made(texts, old, new)


@pytest.fixture(scope="session")
def most(shared_home: Path, embedder: PoolEmbedder, made: Made) -> Made:
    """As `made`, and hundreds more."""
    texts, config = stores.texts(MOST), load_config(environ=clean_environ(shared_home))
    old, new = (
        np.concatenate([first, embed(embedder, texts[SOME:], find_target(config, embedder, name))])
        for name, first in (("minilm", made.old), ("minilm-f32", made.new))
    )
    return Made(texts, old, new)


@pytest.fixture(scope="session")
def many(shared_home: Path, embedder: PoolEmbedder, most: Made) -> Made:
    """As `most`, and thousands more that are `old` alone."""
    texts = stores.texts(MANY)
    config = load_config(environ=clean_environ(shared_home))
    more = embed(embedder, texts[MOST:], find_target(config, embedder, "minilm"))
    return Made(texts, np.concatenate([most.old, more]), most.new)


@pytest.fixture(scope="session")
def embedder(shared_home: Path) -> Iterator[PoolEmbedder]:
    compiled.lend(shared_home)
    with Remembering(load_config(environ=clean_environ(shared_home))) as running:
        yield running
    compiled.keep(shared_home)


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
            of: Made = made if rows <= SOME else request.getfixturevalue("many")
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


@pytest.fixture(autouse=True)
def probed_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for long for a server that is asked what it is, as one that stands still has to be."""
    monkeypatch.setattr(probing, "PROBE_S", PROBE_S)


@pytest.fixture
def texts_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for texts of vectors as long as a writer may stand still before it writes them."""
    monkeypatch.setattr(textless, "LACKING_S", 30.0)
    monkeypatch.setattr(swap, "TEXTS_S", 60.0)


@pytest.fixture
def nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only a moment for texts of vectors that have none."""
    monkeypatch.setattr(textless, "LACKING_S", 0.05)


def config_of(folder: Path) -> object:
    """Return what is in a cmem folder's settings."""
    return json.loads((folder / "config.json").read_text())


def still_old(folder: Path, made: Made, work: Work) -> None:
    """Check that a store is exactly as it was before a migration."""
    assert np.array_equal(stores.read(folder / "memories.db")[1], made.old[:300])
    assert config_of(folder) == UNCHANGED
    assert work.open(folder).store.stamp() is None
    assert status(work.open(folder), work.state)["backups"] == []
    assert StoresFile(work.state).read() == {}
