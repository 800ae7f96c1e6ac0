"""Store kind `lancedb`: a table of a LanceDB folder, replaced by one version of Lance.

Lance locks nobody out. A version is committed only if no other was since the one it was made from,
so nothing that others write is overwritten: see `lance_swap`.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from emberd.errors import BackupError, StoreError, StoreKindError
from emberd.installing import pip
from emberd.spaces.stores import folder_of
from emberd.stores.base import Cost, Key, Lacking, Row, Shape, Stamp
from emberd.stores.choice import chosen
from emberd.stores.files import replace_text

if TYPE_CHECKING:
    from emberd.stores.lancedb.swap import LanceReplacement, LanceRestoration
    from emberd.stores.lancedb.table import LanceTable

SUFFIX = ".lance"
KEY_BYTES = 64  # of disk, to sort a key


class LanceDBStore:
    """One table of a LanceDB database on this machine.

    Args:
        path: the database's folder, or that of the table in it.
        table: the table; required if there are several.
        vector: its column of vectors; by default `vector`, or the only one.
        text: its column of texts; by default `text`, or the only one of strings beside the key.
        id: its column of unique keys; by default `id`.
    """

    kind: ClassVar[str] = "lancedb"
    locks_writers: ClassVar[bool] = False
    parts_apart: ClassVar[bool] = True
    settings: Path | None = None

    def __init__(
        self,
        path: Path,
        *,
        table: str | None = None,
        vector: str | None = None,
        text: str | None = None,
        id: str | None = None,
    ) -> None:
        itself = _is_table(path)
        self.path = path.parent if itself else path
        self._table_name = path.name.removesuffix(SUFFIX) if itself else table
        self._options = {"vector": vector, "text": text, "id": id}
        self._read: LanceTable | None = None
        self._tag: str | None = None  # of the backup that this process made last

    @classmethod
    def recognises(cls, path: object) -> bool:
        """Whether it is a folder with a table of LanceDB, or such a table."""
        return isinstance(path, Path) and (_is_table(path) or bool(_tables(path)))

    @property
    def part(self) -> str:
        """The table."""
        return chosen(
            self._table_name, _tables(self.path), place=self.path, what="table", option="table",
            makes="A store is a folder that LanceDB made: it has NAME.lance in it.",
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """The folder of the table."""
        return self.path / f"{self.part}{SUFFIX}"

    @property
    def caveats(self) -> Sequence[str]:
        """What does not hold, because LanceDB locks nobody out."""
        found = [
            "LanceDB locks no writer out: rows written between the last look and the swap are kept,"
            " but a search does not find them until they are embedded, seconds later.",
            "A tag keeps the old vectors, and LanceDB's `optimize` fails with an error that names"
            " it once it would delete that version (after 7 days by default).",
        ]
        return found + self._table().caveats()

    def inspect(self) -> Shape:
        """Count rows; see `Store`."""
        return self._table().shape()

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield rows; see `Store`. A pass that goes on `after` a key stays in its version."""
        table = self._read if after is not None and self._read else self._table()
        yield from table.rows(after=after, vectors=vectors)

    def halved(self) -> Iterator[Row]:
        """Find rows that were written just before the swap, without it; see `Store`."""
        yield from self._table().late()

    def lacking(self) -> Lacking:
        """Return the keys; see `Store`."""
        return self._table().lacking()

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Compare with every row, as an index of Lance only finds most of the nearest."""
        return self._table().search(vector, count)

    def stamp(self) -> Stamp | None:
        """Read it from the metadata of the column of vectors."""
        return self._table().stamp()

    def cost(self, dimensions: int) -> Cost:
        """Work it out: the old vectors stay where they are, and nobody waits."""
        table = self._table()
        rows, indexed = table.shape().rows, len(table.indexes())
        return Cost(
            backup_bytes=4 * dimensions * rows * (1 + indexed),
            swap_bytes=(4 * dimensions + KEY_BYTES) * rows,
            locked_s=0.0,
        )

    def digest(self) -> str:
        """Return the migration, and how many versions with other rows came after it."""
        return self._table().digest()

    def backup(self, target: Path) -> None:
        """Have Lance keep the present version under a tag; its name is the token."""
        self._tag = self.keep(target)

    def check_backup(self, backup: Path) -> None:
        """Open the version."""
        tag = _token(backup)["tag"]
        version = self._table().tagged(tag)
        if version is None:
            raise StoreError(f"the table {self.part} no longer has the tag {tag}.")
        self._library().open_table(self.folder, self._options, version=version).shape()

    def discard_backup(self, backup: Path) -> None:
        """Drop the tag, so that LanceDB's own cleanup may delete the version."""
        self._table().untag(_token(backup)["tag"])

    @contextmanager
    def restoring(self, backup: Path) -> "Iterator[LanceRestoration]":
        """Restore the version as a new one."""
        from emberd.stores.lancedb.swap import LanceRestoration

        self.check_backup(backup)
        yield LanceRestoration(self, self._table(), _token(backup)["tag"])

    @contextmanager
    def replacing(self) -> "Iterator[LanceReplacement]":
        """Take the present version; what is not committed is never seen."""
        table = self._table()
        table.require_writable()
        from emberd.stores.lancedb.swap import LanceReplacement

        scratch = folder_of(str(self.path), self.path, self.part, self.path)
        yield LanceReplacement(table, scratch, tag=lambda: self._tag)

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return `text`: this kind has no settings."""
        del model, dimensions
        return text

    def keep(self, target: Path) -> str:
        """Tag the present version and write the token; return the tag."""
        table, tag = self._table(), f"{self._library().TAG}{uuid.uuid4().hex}"
        self._write_token(target, tag, table.version)
        table.tag(tag, table.version)
        return tag

    def _write_token(self, target: Path, tag: str, version: int) -> None:
        about = {"kind": self.kind, "table": self.part, "tag": tag, "version": version}
        replace_text(target, json.dumps(about))

    def _table(self) -> "LanceTable":
        """Return the table as it is now."""
        if self._read is None or not self._read.is_latest():
            self._read = self._library().open_table(self.folder, self._options)
        return self._read

    def _library(self) -> ModuleType:
        try:
            from emberd.stores.lancedb import table
        except ImportError as error:
            raise StoreKindError(
                f"A store of the kind lancedb is read with {error.name}, which is not installed.",
                hint=f"Run `{pip('install', 'emberd[lancedb]')}`.",
            ) from None
        return table


def _token(file: Path) -> dict[str, Any]:
    try:
        token = json.loads(file.read_text())
        if isinstance(token["tag"], str):
            return dict(token)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BackupError(f"{file} does not say which version of the table is the backup.")


def _is_table(path: Path) -> bool:
    return path.suffix == SUFFIX and (path / "_versions").is_dir()


def _tables(path: Path) -> list[str]:
    """Return the names of the tables in a folder."""
    if not path.is_dir():
        return []
    found = (each for each in path.iterdir() if _is_table(each))
    return sorted(each.name.removesuffix(SUFFIX) for each in found)
