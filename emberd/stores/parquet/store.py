"""Store kind `parquet`: a folder of Parquet files, or one, exchanged with a new one in one step.

The old folder is the backup: it lies in the folder beside the store (`workplace`) from then on, and
comes back by another exchange. Nobody can be locked out of files: see `swap` for those that are
written meanwhile.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from emberd.errors import BackupError, NotAStoreError, StoreKindError
from emberd.installing import pip
from emberd.spaces.stores import folder_beside
from emberd.stores.base import Cost, Key, Lacking, Row, Shape, Stamp
from emberd.stores.exchange import is_one_step, mended
from emberd.stores.files import replace_text
from emberd.stores.parquet.kept import forget, new_place

if TYPE_CHECKING:
    from emberd.stores.parquet.snapshot import Snapshot
    from emberd.stores.parquet.swap import ParquetReplacement, ParquetRestoration

ENDS = (".parquet", ".pq")
LOOKED_AT = 1000  # files in a folder, until it does not seem to be such a store
KEY_BYTES = 96  # of disk, to sort a key


class ParquetStore:
    """A folder of Parquet files, with or without folders in it, or one file.

    Args:
        path: the folder or file.
        text: the column of texts; by default `text`, or the only one of strings beside the key.
        vector: the column of vectors, lists of float32; by default `vector`, or the only one.
        id: the column of unique keys; by default `id`. If there is none, file and number of the row
            are the key.
    """

    kind: ClassVar[str] = "parquet"
    locks_writers: ClassVar[bool] = False
    settings: Path | None = None

    def __init__(
        self,
        path: Path,
        *,
        text: str | None = None,
        vector: str | None = None,
        id: str | None = None,
    ) -> None:
        self.path = path.resolve()  # a link stays where it is when the folder is exchanged
        self._options = {"text": text, "vector": vector, "id": id}
        self._read: Snapshot | None = None
        self._kept: Path | None = None  # where the old folder goes, by the last backup's token

    @classmethod
    def recognises(cls, path: object) -> bool:
        """Whether it is a file, or a folder with a file, that ends in .parquet or .pq."""
        if not isinstance(path, Path):
            return False
        if path.is_file():
            return path.name.endswith(ENDS)
        if not path.is_dir():
            return False
        some = (each for each, _ in zip(path.rglob("*"), range(LOOKED_AT), strict=False))
        return any(each.name.endswith(ENDS) and each.is_file() for each in some)

    @property
    def caveats(self) -> Sequence[str]:
        """What does not hold, because files can be opened one by one."""
        found = [
            "Nobody can be locked out of Parquet files: what is written between the last look and"
            " the swap is brought over, and readers miss it until it is embedded, seconds later."
        ]
        if not self.path.is_dir():
            return found
        found += [
            "Files of rows get other names: a program that has listed the old ones, and opens them"
            " after the swap, gets an error and has to list them again. One that lists a folder in"
            " the folder only after it has read another may see a mixture.",
            "A program that writes files under fixed names, or reads a file and writes it again,"
            " has to pause: it would add the same rows once more.",
        ]
        if not is_one_step(self.path.parent):
            found.append(
                "This file system cannot exchange two folders: at the swap, the folder is away for"
                " the moment between two renames."
            )
        return found

    def inspect(self) -> Shape:
        """Count rows; see `Store`."""
        return self._snapshot().shape()

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield rows; see `Store`. A pass that goes on `after` a key stays with its files."""
        read = self._read if after is not None and self._read else self._snapshot()
        yield from read.rows(after=after, vectors=vectors)

    def halved(self) -> Iterator[Row]:
        """Find rows in files that were written to the old folder; see `Store`."""
        self._library()
        from emberd.stores.parquet.late import Late

        for late in Late.all_of(self.path, self._options, self.stamp()):
            yield from late.rows()

    def lacking(self) -> Lacking:
        """Return the keys; see `Store`."""
        return self._snapshot().lacking()

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Compare with every row."""
        return self._snapshot().search(vector, count)

    def stamp(self) -> Stamp | None:
        """Read it from the metadata of the schema."""
        self._require_there()
        stamp: Stamp | None = self._library().stamp_of(self.path)
        return stamp

    def cost(self, dimensions: int) -> Cost:
        """Work it out: all is written anew, and nobody waits."""
        read = self._snapshot()
        here = sum(size for size, _, _ in read.files.values())
        rows = read.shape().rows
        wider = max(0, 4 * (dimensions - read.dimensions)) * rows
        sorted_bytes = (4 * (dimensions + read.dimensions) + KEY_BYTES) * rows
        return Cost(backup_bytes=here + wider, swap_bytes=sorted_bytes, locked_s=0.0)

    def digest(self) -> str:
        """Hash the names, sizes and times of all files."""
        self._require_there()
        library = self._library()
        digest: str = library.digest_of(library.tree(self.path))
        return digest

    def backup(self, target: Path) -> None:
        """Write where the old folder will be: the swap exchanges it with the new one there."""
        self._kept = new_place(self.path)
        replace_text(target, json.dumps({"kind": self.kind, "kept": self._kept.name}))

    def check_backup(self, backup: Path) -> None:
        """Look whether every file is there."""
        self._library()
        from emberd.stores.parquet.swap import check_kept

        check_kept(self._kept_by(backup))

    def discard_backup(self, backup: Path) -> None:
        """Delete the folder, unless another token in the folder of this one names it too."""
        kept = self._kept_by(backup)
        others = (each for each in backup.parent.glob("*.db") if each != backup)
        if not any(_names(each, kept.name) for each in others):
            forget(kept)

    @contextmanager
    def restoring(self, backup: Path) -> "Iterator[ParquetRestoration]":
        """Exchange both folders again."""
        self.check_backup(backup)
        from emberd.stores.parquet.swap import ParquetRestoration

        yield ParquetRestoration(self, self._kept_by(backup))

    @contextmanager
    def replacing(self) -> "Iterator[ParquetReplacement]":
        """Take the files as they are; what is not committed is deleted."""
        self._require_there()
        self._library()
        from emberd.stores.parquet.swap import ParquetReplacement, require_writable

        require_writable(self.path)
        replacement = ParquetReplacement(self, self._options, lambda: self._kept)
        try:
            yield replacement
        finally:
            replacement.close()

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return `text`: this kind has no settings."""
        del model, dimensions
        return text

    def snapshot(self) -> "Snapshot":
        """Return the rows as they are now."""
        return self._snapshot()

    def _kept_by(self, token: Path) -> Path:
        try:
            name = json.loads(token.read_text())["kept"]
        except (OSError, ValueError, KeyError, TypeError):
            name = None
        if not isinstance(name, str) or Path(name).name != name:
            raise BackupError(f"{token} does not say which folder is the backup.")
        return mended(folder_beside(self.path) / name)

    def _snapshot(self) -> "Snapshot":
        self._require_there()
        self._library()
        from emberd.stores.parquet.snapshot import Snapshot

        if self._read is None or self._read.files != self._library().tree(self.path):
            self._read = Snapshot(self.path, self._options, folder_beside(self.path))
        return self._read

    def _require_there(self) -> None:
        if not self.path.exists():
            raise NotAStoreError(f"There is no {self.path}.", hint="Correct the path.")

    def _library(self) -> ModuleType:
        try:
            from emberd.stores.parquet import files
        except ImportError as error:
            raise StoreKindError(
                f"A store of the kind parquet is read with {error.name}, which is not installed.",
                hint=f"Run `{pip('install', 'emberd[parquet]')}`.",
            ) from None
        return files


def _names(token: Path, name: str) -> bool:
    try:
        return bool(json.loads(token.read_bytes())["kept"] == name)
    except (OSError, ValueError, KeyError, TypeError):
        return False
