"""Turns SQLite's errors into ours, which say which file, what happened, and what to do."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from emberd.errors import (
    DiskFullError,
    EmberdError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreRowsError,
)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of SQLite into one of ours that names the file."""
    try:
        yield
    except (apsw.Error, UnicodeDecodeError) as error:
        raise _explanation(path, error) from None


def _explanation(path: Path, error: Exception) -> EmberdError:
    for kinds, explain in _EXPLANATIONS:
        if isinstance(error, kinds):
            return explain(path, error)
    return StoreError(f"{path}: {error}.")


def _busy(path: Path, error: Exception) -> EmberdError:
    del error
    return StoreBusyError(
        f"{path} is locked by another process.",
        hint="Wait until that process has finished, or end it, then run this again.",
    )


def _io_error(path: Path, error: Exception) -> EmberdError:
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE:
        return full(path)
    return StoreError(f"{path} cannot be read or written: {error}.")


def _read_only(path: Path, error: Exception) -> EmberdError:
    del error
    return StoreError(f"{path} or its folder is read-only.", hint="Correct the permissions.")


def _not_a_database(path: Path, error: Exception) -> EmberdError:
    del error
    return NotAStoreError(
        f"{path} is not an SQLite database.",
        hint="Correct the path, or name the store's kind with --kind.",
    )


def _cannot_open(path: Path, error: Exception) -> EmberdError:
    return StoreError(
        f"{path} cannot be opened: {error}.",
        hint="Correct the permissions, or free some disk space.",
    )


def _corrupt(path: Path, error: Exception) -> EmberdError:
    return StoreError(
        f"{path} is damaged: {error}.", hint="Restore it from one of your backups first."
    )


def _other_schema(path: Path, error: Exception) -> EmberdError:
    return NotAStoreError(
        f"{path} does not have the expected schema, or is damaged: {error}.",
        hint="Name the column that holds the key: `--option id=COLUMN`."
        if re.search(r"no such column: \W?rowid\b", str(error))
        else "docs/migrating-a-store.md describes the schema; `PRAGMA integrity_check` finds"
        " damage.",
    )


def _not_text(path: Path, error: Exception) -> EmberdError:
    del error
    return StoreRowsError(
        f"{path} has texts that are not UTF-8.", hint="Correct or delete those rows first."
    )


def full(path: Path) -> DiskFullError:
    """Return the error for a full disk."""
    return DiskFullError(
        f"The disk of {path} is full; the store was not changed.",
        hint="Free some space and run this again: what was embedded is kept.",
    )


_EXPLANATIONS: Sequence[
    tuple[tuple[type[Exception], ...], Callable[[Path, Exception], EmberdError]]
] = (
    ((apsw.BusyError, apsw.LockedError), _busy),
    ((apsw.FullError,), lambda path, _: full(path)),
    ((apsw.IOError,), _io_error),
    ((apsw.ReadOnlyError, apsw.PermissionsError), _read_only),
    ((apsw.NotADBError,), _not_a_database),
    ((apsw.CantOpenError,), _cannot_open),
    ((apsw.CorruptError,), _corrupt),
    ((apsw.SQLError,), _other_schema),
    ((UnicodeDecodeError,), _not_text),
)
