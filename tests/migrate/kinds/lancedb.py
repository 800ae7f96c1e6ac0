"""A table of LanceDB, used through its own client."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import lancedb
import numpy as np
import pyarrow as pa

from emberd.migrate.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows


class Subject:
    """One folder, with the table `notes`."""

    name: ClassVar[str] = "lancedb"
    one_process: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.path, self._made = folder / "db", folder / "made"
        options = {"table": "notes", "text": "body"}
        self.entry: dict[str, Any] = {
            "kind": "lancedb", "path": str(self.path), "options": options,
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def key(self, number: int) -> Key:
        """Return a string whose order is not that of the numbers."""
        return f"n{number}"

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the folder in two writes, and a copy of it."""
        half = len(rows) // 2 or 1
        table = lancedb.connect(self._made).create_table("notes", as_table(rows[:half]))
        if rows[half:]:
            table.add(as_table(rows[half:]))
        self.reset()

    def reset(self) -> None:
        """Copy it."""
        shutil.rmtree(self.path.with_name("db.emberd"), ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self._made, self.path)

    def session(self) -> "Session":
        """Open the table."""
        return Session(self.path)

    def copied(self) -> Rows:
        """Read the versions that an undo tagged."""
        found: Rows = {}
        for token in sorted(self.path.with_name("db.emberd").glob("notes/undone-*.db")):
            session = Session(self.path)
            session.table.checkout(json.loads(token.read_text())["tag"])
            found |= session.read()
        return found


class Session:
    """A table that stays open."""

    def __init__(self, path: Path) -> None:
        self.table: Any = lancedb.connect(path).open_table("notes")

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Write it in one version."""
        self.table.checkout_latest()
        merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(as_table([(key, text, vector)]))

    def delete(self, key: Key) -> None:
        """Delete it in one version."""
        self.table.checkout_latest()
        self.table.delete(f"id = '{key}'")

    def rows(self) -> Rows:
        """Read the latest version."""
        self.table.checkout_latest()
        return self.read()

    def read(self) -> Rows:
        """Read the version that is open."""
        found = self.table.to_arrow()
        return {
            row["id"]: (row["body"], np.array(row["vector"] or [], "<f4"))
            for row in found.to_pylist()
        }

    def is_migrated(self) -> bool:
        """Look at the metadata of the column."""
        self.table.checkout_latest()
        return b"emberd.stamp" in (self.table.schema.field("vector").metadata or {})

    def close(self) -> None:
        """Let go of it."""
        del self.table


def as_table(rows: Sequence[tuple[Key, str, Matrix]]) -> pa.Table:
    """Return rows as LanceDB takes them, with a column of other things."""
    keys, texts, vectors = zip(*rows, strict=True)
    flat = pa.array(np.concatenate(vectors).astype("<f4"))
    return pa.table(
        {
            "id": list(keys),
            "body": list(texts),
            "length": [len(text) for text in texts],
            "vector": pa.FixedSizeListArray.from_arrays(flat, len(vectors[0])),
        }
    )
