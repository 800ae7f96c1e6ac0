"""A folder of Qdrant's local mode: one process at a time, so each session opens it for a moment."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from qdrant_client import QdrantClient, models

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows

ALIAS, COLLECTION = "docs", "docs_v1"
MOST = 10_000
Opening = Callable[[], AbstractContextManager[QdrantClient]]


class Subject:
    """An alias, and the collection that it means."""

    name: ClassVar[str] = "qdrant"
    may_raise: ClassVar[Sequence[str]] = ("RuntimeError",)  # another process has the folder

    def __init__(self, folder: Path) -> None:
        self.path, self._made = folder / "qdrant", folder / "made"
        self.entry: dict[str, Any] = {
            "kind": "qdrant", "path": str(self.path), "options": {"collection": ALIAS},
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def key(self, number: int) -> Key:
        """Return a number or a UUID."""
        return key(number)

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the folder, and a copy of it."""
        shutil.rmtree(self._made, ignore_errors=True)
        with closing(QdrantClient(path=str(self._made))) as client:
            make(client, rows)
        self.reset()

    def reset(self) -> None:
        """Copy it."""
        for folder in (self.path, self.path.with_name("qdrant.emberd")):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._made, self.path)

    def session(self) -> "Session":
        """Open one."""
        return Session(self._open)

    def copied(self) -> Rows:
        """Read what an undo left."""
        with self._open() as client:
            return undone(client)

    def things(self) -> int:
        """Count collections."""
        with self._open() as client:
            return len(client.get_collections().collections)

    @contextmanager
    def _open(self) -> Iterator[QdrantClient]:
        with closing(QdrantClient(path=str(self.path))) as client:
            yield client


class Session:
    """A program that opens the store for each thing that it does."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Upsert."""
        with self._opening() as client:
            client.upsert(ALIAS, [point(key, text, vector)])

    def delete(self, key: Key) -> None:
        """Delete."""
        with self._opening() as client:
            client.delete(ALIAS, [key])

    def rows(self) -> Rows:
        """Scroll through all of it at once."""
        with self._opening() as client:
            return read(client, ALIAS)

    def is_migrated(self) -> bool:
        """Look for the note."""
        with self._opening() as client:
            return "emberd" in (client.get_collection(ALIAS).config.metadata or {})

    def close(self) -> None:
        """There is nothing to close."""


def key(number: int) -> Key:
    """Return a number or a UUID."""
    return number if number % 2 else str(uuid5(NAMESPACE_URL, str(number)))


def make(client: QdrantClient, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
    """Make a collection with metadata, and an alias for it."""
    client.create_collection(
        COLLECTION,
        vectors_config=models.VectorParams(
            size=len(rows[0][2]), distance=models.Distance.COSINE,
            hnsw_config=models.HnswConfigDiff(m=24),
        ),
        metadata={"made_by": "a program"},
    )  # fmt: skip
    client.upsert(COLLECTION, [point(*row) for row in rows])
    alias = models.CreateAlias(collection_name=COLLECTION, alias_name=ALIAS)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])


def point(key: Key, text: str, vector: Matrix) -> models.PointStruct:
    """Return a point as programs write it."""
    payload = {"text": text, "length": len(text)}
    return models.PointStruct(id=key, vector=vector.tolist(), payload=payload)


def read(client: QdrantClient, name: str) -> Rows:
    """Read a collection."""
    found, _ = client.scroll(name, limit=MOST, with_vectors=True)
    return {
        each.id if isinstance(each.id, int) else str(each.id): (
            (each.payload or {})["text"],
            np.asarray(each.vector, np.float32),
        )
        for each in found
    }


def undone(client: QdrantClient) -> Rows:
    """Read the collections that a migration made and an undo left."""
    found: Rows = {}
    present = {each.collection_name for each in client.get_aliases().aliases}
    for each in client.get_collections().collections:
        metadata = client.get_collection(each.name).config.metadata or {}
        if each.name not in present and "emberd" in metadata:
            found |= read(client, each.name)
    return found
