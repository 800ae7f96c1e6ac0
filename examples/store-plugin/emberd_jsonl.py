"""Store kind `jsonl`: one text and its vector per line. A row's key is its line number.

The file is read whole and replaced by renaming, so a reader sees either the old one or the new one.
The stamp is a line of its own, `{"space": ...}`, so that it changes together with the vectors.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from emberd.errors import NotAStoreError, StoreBusyError, StoreError
from emberd.stores.base import Cost, Key, Row, Shape, Stamp

BYTES_OF_A_NUMBER = 22  # a float32 in JSON, with comma and space
BYTES_A_SECOND = 20e6  # of JSON, written by Python


class JsonlStore:
    """One file. A program that writes to it first takes `flock` on it, as `replacing` does.

    A program that had to wait for the lock opens the file again: another may have replaced it.

    Args:
        path: the file.
        text: the name of the text in a line.
        vector: the name of the vector in a line.
    """

    kind = "jsonl"
    settings: Path | None = None

    def __init__(self, path: Path, *, text: str = "text", vector: str = "vector") -> None:
        self.path = path
        self.text = text
        self.vector = vector

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether its name ends in .jsonl."""
        return path.suffix == ".jsonl" and path.is_file()

    def inspect(self) -> Shape:
        """Count lines with and without a vector; the first vector gives the dimension."""
        vectors = [line.get(self.vector) for _, line in self.lines() if "space" not in line]
        there = [vector for vector in vectors if vector]
        return Shape(
            rows=len(there),
            dimensions=len(there[0]) if there else 0,
            without_vector=len(vectors) - len(there),
        )

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield the lines that have a vector."""
        for number, line in self.lines():
            if line.get(self.vector) and (after is None or number > int(after)):
                raw = np.asarray(line[self.vector], "<f4").tobytes() if vectors else b""
                text = line.get(self.text)
                yield Row(number, text if isinstance(text, str) else None, raw)

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Compare with every line."""
        rows = list(self.rows())
        matrix = np.stack([np.frombuffer(row.vector, "<f4") for row in rows])
        distances = np.linalg.norm(matrix - np.frombuffer(vector, "<f4"), axis=1)
        return [rows[at].key for at in np.argsort(distances, kind="stable")[:count]]

    def stamp(self) -> Stamp | None:
        """Read the line of the stamp."""
        kept = next((line["space"] for _, line in self.lines() if "space" in line), None)
        return Stamp.from_json(kept) if kept else None

    def cost(self, dimensions: int) -> Cost:
        """Work out how large the new file gets, which stands beside the old one for a moment."""
        size = self.path.stat().st_size
        new = size + self.inspect().rows * dimensions * BYTES_OF_A_NUMBER
        return Cost(backup_bytes=size, swap_bytes=new, locked_s=new / BYTES_A_SECOND)

    def digest(self) -> str:
        """Read the file."""
        return digest(self.path)

    def backup(self, target: Path) -> None:
        """Copy the file."""
        partial = target.with_name(f"{target.name}.partial")
        shutil.copy2(self.path, partial)
        partial.replace(target)

    def check_backup(self, backup: Path) -> None:
        """Read every line."""
        JsonlStore(backup, text=self.text, vector=self.vector).inspect()

    @contextmanager
    def restoring(self, backup: Path) -> Iterator["_Restoring"]:
        """Lock the file."""
        with self._locked():
            yield _Restoring(self, backup)

    @contextmanager
    def replacing(self) -> Iterator["_Replacing"]:
        """Lock the file; what is not committed is thrown away."""
        with self._locked():
            new = self.path.with_name(f".{self.path.name}.new")
            new.unlink(missing_ok=True)  # of a process that was killed
            try:
                yield _Replacing(self, new)
            finally:
                new.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            file = self.path.open("r+")
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}.") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreBusyError(f"{self.path} is locked by another process.") from None
            yield

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return the settings unchanged: no program keeps any for such a file."""
        del model, dimensions
        return text

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and content of each line that is not empty."""
        try:
            with self.path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, dict(json.loads(line))
        except (OSError, ValueError, TypeError) as error:
            raise NotAStoreError(f"{self.path} is not a file of JSON objects: {error}.") from None


def digest(file: Path) -> str:
    """Return a hash of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _Restoring:
    """The locked file, and its backup."""

    def __init__(self, store: JsonlStore, backup: Path) -> None:
        self._store = store
        self._backup = backup

    def copy(self, target: Path) -> None:
        """Copy the file."""
        self._store.backup(target)

    def digest(self) -> str:
        """Read the file."""
        return self._store.digest()

    def commit(self) -> None:
        """Copy the backup back; the rename makes it appear all at once."""
        copy = self._store.path.with_name(f".{self._store.path.name}.restored")
        shutil.copy2(self._backup, copy)
        copy.replace(self._store.path)


class _Replacing:
    """The lines as they will be, in a file beside the store until `commit`."""

    def __init__(self, store: JsonlStore, new: Path) -> None:
        self._store = store
        self._new = new

    def rows(self) -> Iterator[Row]:
        """Yield those of the file as it is."""
        return self._store.rows(vectors=False)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Write every line again where it was; the stamp replaces the old one or comes last."""
        del dimensions
        space = json.dumps({"space": stamp.to_json()}) + "\n"
        rest = dict(vectors)
        with self._new.open("w", encoding="utf-8") as file:
            at, stamped = 0, False
            for number, line in self._store.lines():
                file.write("\n" * (number - at - 1))
                at = number
                if "space" in line:
                    stamped = bool(file.write(space))
                    continue
                if number in rest:
                    line[self._store.vector] = np.frombuffer(rest[number], "<f4").tolist()
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if not stamped:
                file.write(space)
            file.flush()
            os.fsync(file.fileno())

    def unmoved(self) -> Mapping[str, str]:
        """Hash all of each line but its vector, from the new file once there is one."""
        file = self._new if self._new.exists() else self._store.path
        name = self._store.vector
        rest = [
            (number, {key: value for key, value in line.items() if key != name})
            for number, line in JsonlStore(file).lines()
            if "space" not in line
        ]
        return {"the lines": hashlib.sha256(json.dumps(rest).encode()).hexdigest()}

    def digest(self) -> str:
        """Hash the file that will be there."""
        return digest(self._new)

    def commit(self) -> None:
        """Put the new file in place of the old one."""
        shutil.copymode(self._store.path, self._new)
        self._new.replace(self._store.path)
