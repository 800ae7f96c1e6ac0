"""A folder of Chroma; each session opens it anew, as an open one does not see what others write."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import chromadb
import numpy as np
from chromadb.config import Settings

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows

NAME = "docs"
Opening = Callable[[], AbstractContextManager[Any]]


class Folder:
    """A collection."""

    def __init__(self, folder: Path) -> None:
        self.path, self._made = folder / "chroma", folder / "made"
        self.entry: dict[str, Any] = {
            "kind": "chroma", "path": str(self.path), "options": {"collection": NAME},
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def key(self, number: int) -> Key:
        """Return a text; its order is not that of the numbers."""
        return f"{'é' if number % 5 == 0 else 'row'}-{number}"

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the folder, and a copy of it."""
        shutil.rmtree(self._made, ignore_errors=True)
        make_folder(self._made, rows)
        self.reset()

    def reset(self) -> None:
        """Copy it."""
        for folder in (self.path, self.path.with_name("chroma.emberd")):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._made, self.path)

    def session(self) -> "Session":
        """Open one."""
        return Session(self.open)

    def copied(self) -> Rows:
        """Read what an undo left."""
        with self.open() as client:
            return undone(client)

    def things(self) -> int:
        """Count collections."""
        with self.open() as client:
            return len(client.list_collections())

    def open(self) -> AbstractContextManager[Any]:
        """Open the folder."""
        return opened(self.path)


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """Open a folder."""
    settings = Settings(anonymized_telemetry=False)
    client: Any = chromadb.PersistentClient(str(folder), settings=settings)
    with closing(client):
        yield client


class Subject(Folder):
    """One that only other processes open, as Chroma does not come through a fork once it was."""

    name: ClassVar[str] = "chroma"
    one_process: ClassVar[bool] = True
    may_raise: ClassVar[Sequence[str]] = ("NotFoundError",)  # between the two renames

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the folder in a new process, and a copy of it."""
        process = multiprocessing.get_context("spawn").Process(
            target=make_folder, args=(self._made, rows)
        )
        process.start()
        process.join()
        self.reset()


class Session:
    """A program that gets the collection by its name for each thing that it does."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Upsert."""
        with self._opening() as client:
            _write(client.get_collection(NAME), [(key, text, vector)])

    def delete(self, key: Key) -> None:
        """Delete."""
        with self._opening() as client:
            client.get_collection(NAME).delete(ids=[key])

    def rows(self) -> Rows:
        """Get all of it at once."""
        with self._opening() as client:
            return read(client.get_collection(NAME))

    def is_migrated(self) -> bool:
        """Look for the note."""
        with self._opening() as client:
            return "emberd" in (client.get_collection(NAME).metadata or {})

    def close(self) -> None:
        """There is nothing to close."""


def make_folder(folder: Path, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
    """Make a folder with one collection."""
    with opened(folder) as client:
        make(client, rows)


def make(client: Any, rows: Sequence[tuple[Key, str, Matrix]]) -> None:  # noqa: ANN401
    """Make a collection with metadata and settings of its own."""
    made = client.create_collection(
        NAME,
        metadata={"made_by": "a program"},
        configuration={"hnsw": {"space": "cosine", "ef_search": 77}},
    )
    _write(made, rows)


def _write(collection: Any, rows: Sequence[tuple[Key, str, Matrix]]) -> None:  # noqa: ANN401
    collection.upsert(
        ids=[key for key, _, _ in rows],
        documents=[text for _, text, _ in rows],
        embeddings=np.stack([vector for _, _, vector in rows]),
        metadatas=[{"length": len(text)} for _, text, _ in rows],
    )


def read(collection: Any) -> Rows:  # noqa: ANN401
    """Read a collection."""
    found = collection.get(include=["documents", "embeddings"])
    vectors = np.asarray(found["embeddings"], np.float32)
    rows = zip(found["ids"], found["documents"], vectors, strict=True)
    return {key: (text, vector) for key, text, vector in rows}


def undone(client: Any) -> Rows:  # noqa: ANN401
    """Read the collections that an undo left."""
    found: Rows = {}
    for each in client.list_collections():
        if each.name.endswith("-undone"):
            found |= read(each)
    return found
