"""A table of LanceDB, used through its own client, never in a process that forks afterwards.

LanceDB's client does not come through a fork whole once it was used, and tests fork. So a session
has a process of its own, which takes a line of JSON for each call and answers with one. They are
forked from one that has imported the library, which takes seconds, and not used it:

    python -m tests.migrate.kinds.lancedb SOCKET
"""

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, UnixStreamServer
from typing import Any, ClassVar, Self

import numpy as np

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows

ROOT = Path(__file__).parents[3]


class Subject:
    """One folder, with the table `notes`."""

    name: ClassVar[str] = "lancedb"
    pause_s: ClassVar[float] = 0.5  # each write is a version, and the swap fits between two

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
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_served())
        self._lines = self._connection.makefile("rw")
        self._ask(str(path))

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
        self._lines.close()
        self._connection.close()

    def call(self, name: str, *given: Any) -> Any:  # noqa: ANN401 - JSON
        """Have the process do something."""
        return self._ask([name, given])

    def _ask(self, what: Any) -> Any:  # noqa: ANN401
        self._lines.write(json.dumps(what) + "\n")
        self._lines.flush()
        answer = json.loads(self._lines.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["found"]


@cache
def _served() -> str:
    """Start what has a process for each session, once; it ends with this process."""
    address = str(Path(tempfile.mkdtemp(prefix="emberd-lancedb-")) / "socket")
    command = [sys.executable, "-W", "ignore", "-m", __name__, address]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    atexit.register(process.communicate)
    return address


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


class Handler(StreamRequestHandler):
    """A session."""

    def handle(self) -> None:
        """Answer until the session ends."""
        program = Program(json.loads(self.rfile.readline()))
        self._answer({"found": None})
        for line in self.rfile:
            name, given = json.loads(line)
            try:
                self._answer({"found": getattr(program, name)(*given)})
            except Exception as error:  # noqa: BLE001 - whatever LanceDB raises; it is passed on
                self._answer({"error": f"{type(error).__name__}: {error}"})

    def _answer(self, answer: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(ForkingMixIn, UnixStreamServer):
    """A process for each session."""

    block_on_close = False


def main() -> None:
    """Serve until the input ends."""
    import lancedb  # noqa: F401 - once for all

    def end_with_the_input() -> None:
        sys.stdin.read()
        shutil.rmtree(Path(sys.argv[1]).parent, ignore_errors=True)
        os._exit(0)

    with Server(sys.argv[1], Handler) as server:
        threading.Thread(target=end_with_the_input, daemon=True).start()
        sys.stdout.write("\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
