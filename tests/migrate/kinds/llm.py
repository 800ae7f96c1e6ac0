"""Drives a collection of the command `llm` with its own library."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import llm
import llm.models
import numpy as np
import sqlite_utils

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows
from tests.migrate.kinds.sqlite_file import copied, put_in_place, things

COLLECTION = "notes"
decode: Any = llm.decode


class Given(llm.models.EmbeddingModel):
    """A model that answers with the vectors that it was given."""

    model_id = "emberd/old"

    def __init__(self, vectors: dict[str, Matrix]) -> None:
        self._vectors = vectors

    def embed_batch(self, items: Any, key: str | None = None) -> Iterator[list[float]]:  # noqa: ANN401 - as llm declares it
        """Look them up."""
        del key
        return (self._vectors[item].tolist() for item in items)


class Each(llm.Collection):
    """A collection that may have a text twice: llm embeds none whose hash is there already."""

    @staticmethod
    def content_hash(input: str | bytes) -> bytes:
        """Return one that no other text has, in the place that llm has for that."""
        del input
        return os.urandom(16)


class Subject:
    """A database with one collection, which keeps the texts."""

    name: ClassVar[str] = "llm"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "embeddings.db"
        self._made = folder / "made.db"
        options = {"collection": COLLECTION}
        self.entry: dict[str, Any] = {"kind": "llm", "path": str(self.path), "options": options}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def key(self, number: int) -> Key:
        """A text, as llm's ids are."""
        return f"note {number:06}"

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Have llm make the database, and keep a copy for `reset`."""
        database = sqlite_utils.Database(self._made)
        model = Given({text: vector for _, text, vector in rows})
        collection = Each(COLLECTION, database, model=model)
        collection.embed_multi([(str(key), text) for key, text, _ in rows], store=True)
        database.close()
        self.reset()

    def reset(self) -> None:
        """Copy it back, without what emberd has beside it."""
        put_in_place(self._made, self.path)

    def session(self) -> "Session":
        """Open it."""
        return Session(self.path)

    def copied(self) -> Rows:
        """Read the copies that undos have made."""
        return copied(self.path, Session)

    def things(self) -> int:
        """Count tables and indexes."""
        return things(self.path)


class Session:
    """A program that uses llm's library. What it writes is in the space that it was given."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite_utils.Database(path)
        self._database.execute("PRAGMA busy_timeout = 60000")

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Write a row in one transaction."""
        collection = Each(COLLECTION, self._database, model=Given({text: vector}))
        with self._database.atomic():
            self.delete(key)
            collection.embed(str(key), text, store=True)

    def delete(self, key: Key) -> None:
        """Delete a row; llm has no function for it."""
        self._database.table("embeddings").delete_where("id = ?", [key])

    def rows(self) -> Rows:
        """Read everything in one transaction."""
        found = list(self._database.query("SELECT id, content, embedding FROM embeddings"))
        return {
            row["id"]: (row["content"], np.array(decode(row["embedding"]), "<f4")) for row in found
        }

    def is_migrated(self) -> bool:
        """Whether the stamp's table is there."""
        return "emberd_spaces" in self._database.table_names()

    def close(self) -> None:
        """Close it."""
        self._database.close()
