"""What the databases of SQLite kinds need: to be put back as they were made, and read as copies."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.migrate.kinds.base import Rows, Session


def put_in_place(made: Path, path: Path) -> None:
    """Copy a closed database to where a test expects it, as if it had never been migrated."""
    shutil.rmtree(path.with_name(f"{path.name}.emberd"), ignore_errors=True)
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
    shutil.copy2(made, path)


def copied(path: Path, session: Callable[[Path], Session]) -> Rows:
    """Read the copies that undos have made."""
    found: Rows = {}
    for copy in sorted(path.with_name(f"{path.name}.emberd").glob("undone-*.db")):
        opened = session(copy)
        found |= opened.rows()
        opened.close()
    return found


def things(path: Path) -> int:
    """Count the tables and indexes of a database."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
