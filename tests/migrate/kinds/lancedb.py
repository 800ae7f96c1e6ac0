"""A table of LanceDB, used through its own client: in a process that was not forked.

LanceDB's client does not come through a fork whole, and tests fork. So a session has a process of
its own, which takes a line of JSON for each call and answers with one:

    python -m tests.migrate.kinds.lancedb FOLDER
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows

ROOT = Path(__file__).parents[3]


class Subject:
    """One folder, with the table `notes`."""

    name: ClassVar[str] = "lancedb"

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
        session = Session(self._made)
        for some in (rows[:half], rows[half:]):
            session.call("add", [_sent(*row) for row in some])
        session.close()
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
        session = Session(self.path)
        for token in sorted(self.path.with_name("db.emberd").glob("notes/undone-*.db")):
            found |= session.rows(json.loads(token.read_text())["tag"])
        session.close()
        return found

    def things(self) -> int:
        """Count tables and tags."""
        session = Session(self.path)
        found = int(session.call("things"))
        session.close()
        return found


class Session:
    """A program that has the table open; any error of LanceDB is a RuntimeError here."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, str(path)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Write it in one version."""
        self.call("put", [_sent(key, text, vector)])

    def delete(self, key: Key) -> None:
        """Delete it in one version."""
        self.call("delete", key)

    def rows(self, version: str | None = None) -> Rows:
        """Read a version, by default the latest."""
        found = self.call("rows", version)
        return {key: (text, np.array(vector, "<f4")) for key, text, vector in found}

    def nearest(self, vector: Matrix, count: int) -> list[Key]:
        """Search as a program does, with an index if there is one."""
        return list(self.call("nearest", vector.tolist(), count))

    def is_migrated(self) -> bool:
        """Look at the metadata of the column."""
        return bool(self.call("is_migrated"))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def call(self, name: str, *given: Any) -> Any:  # noqa: ANN401 - JSON
        """Have the process do something."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([name, given]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["found"]


def _sent(key: Key, text: str, vector: Matrix) -> tuple[Key, str, list[float]]:
    return key, text, vector.tolist()


class Program:
    """What runs in the process of a session."""

    def __init__(self, path: str) -> None:
        import lancedb

        self._database: Any = lancedb.connect(path)
        self._open: Any = None

    @property
    def _table(self) -> Any:  # noqa: ANN401 - LanceDB's
        self._open = self._open or self._database.open_table("notes")
        self._open.checkout_latest()
        return self._open

    def add(self, rows: list[Any]) -> None:
        """Append rows, to a new table if there is none."""
        if rows:
            self._database.create_table("notes", _as_table(rows), exist_ok=True, mode="create")
            if self._table.count_rows(f"id = '{rows[0][0]}'") == 0:
                self._table.add(_as_table(rows))

    def put(self, rows: list[Any]) -> None:
        """Replace or add them."""
        merge = self._table.merge_insert("id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(_as_table(rows))

    def delete(self, key: str) -> None:
        """Delete a row."""
        self._table.delete(f"id = '{key}'")

    def rows(self, version: str | None) -> list[Any]:
        """Read everything of one version."""
        table = self._table
        if version:
            table.checkout(version)
        found = table.to_arrow().to_pylist()
        return [(row["id"], row["body"], row["vector"] or []) for row in found]

    def nearest(self, vector: list[float], count: int) -> list[str]:
        """Search."""
        found = self._table.search(vector).limit(count).to_arrow()
        return list(found.column("id").to_pylist())

    def index(self, kind: str, partitions: int) -> None:
        """Make an index of the vectors."""
        self._table.create_index(
            metric="cosine", index_type=kind, num_partitions=partitions,
            vector_column_name="vector",
        )  # fmt: skip

    def indexes(self) -> list[Any]:
        """Return name, columns, type, and how many rows are in each index."""
        table = self._table
        return [
            (
                each.name,
                each.columns,
                each.index_type,
                table.index_stats(each.name).num_indexed_rows,
            )
            for each in table.list_indices()
        ]

    def compact(self) -> None:
        """Have LanceDB put small files together."""
        self._table.optimize()

    def untag(self) -> None:
        """Delete every tag."""
        tags = self._table.tags
        for name in list(tags.list()):
            tags.delete(name)

    def things(self) -> int:
        """Count tables and tags."""
        return len(self._database.table_names()) + len(self._table.tags.list())

    def is_migrated(self) -> bool:
        """Look for the stamp."""
        return b"emberd.stamp" in (self._table.schema.field("vector").metadata or {})


def _as_table(rows: Sequence[Any]) -> Any:  # noqa: ANN401 - Arrow's
    """Return rows as LanceDB takes them, with a column of other things."""
    import pyarrow as pa

    keys, texts, vectors = zip(*rows, strict=True)
    flat = pa.array(np.array(vectors, "<f4").reshape(-1))
    return pa.table(
        {
            "id": list(keys),
            "body": list(texts),
            "length": [len(text) for text in texts],
            "vector": pa.FixedSizeListArray.from_arrays(flat, len(vectors[0])),
        }
    )


def main() -> None:
    """Answer until the input ends."""
    program = Program(sys.argv[1])
    for line in sys.stdin:
        name, given = json.loads(line)
        try:
            answer: dict[str, Any] = {"found": getattr(program, name)(*given)}
        except Exception as error:  # noqa: BLE001 - whatever LanceDB raises; it is passed on
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
