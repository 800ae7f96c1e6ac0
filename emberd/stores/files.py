"""Files that a migration keeps beside a store: notes and tokens, and databases."""

from pathlib import Path

from emberd.errors import StoreError
from emberd.replacing import replace_file

TEMPORARY = ".emberd-new"


def replace_text(path: Path, text: str) -> None:
    """Replace a file by rename, keeping mode and owner; if it is a link, replace its target.

    The temporary file always has the same name, so that the next run replaces one left by a kill.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        replace_file(path, text.encode(), keep=True, temporary=temporary)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None


def delete_database(path: Path) -> None:
    """Remove a SQLite database that nobody has open."""
    for what in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{what}").unlink(missing_ok=True)
