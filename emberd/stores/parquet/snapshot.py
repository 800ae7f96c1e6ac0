"""The rows of all files as they were at one moment, in the order of their keys.

They are read once for each state of the files: keys and texts are sorted in a temporary file, and
vectors are kept in another, by position. So a pass goes on undisturbed when files change.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.errors import NotAStoreError
from emberd.stores.base import Key, Lacking, Row, Shape
from emberd.stores.in_order import order_of
from emberd.stores.parquet.files import (
    ITSELF,
    Broken,
    Columns,
    Signature,
    batches,
    columns_in,
    is_data,
    plain_names,
    tree,
    within,
)
from emberd.stores.scratch import BATCH, Keys, Vectors


@dataclass
class Part:
    """One file in a snapshot: its rows begin at position `first`."""

    first: int
    signature: Signature


@dataclass
class Snapshot:
    """`scratch` is the folder for temporary files; `parts` are the files that could be read."""

    place: Path
    options: Mapping[str, str | None]
    scratch: Path
    files: dict[str, Signature] = field(init=False)
    parts: dict[str, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = tree(self.place)
        names = [name for name in self.files if is_data(name)]
        self.plain = {**plain_names(names), ITSELF: self.place.name}
        self._lacking: dict[str, list[Key]] = {"text": [], "vector": []}
        self._without_text = self._size = self._total = 0
        self.schema, self.columns = self._described(names)
        self._vectors: Vectors | None = None
        self._odd: dict[int, bytes] = {}
        self.keys = Keys(self._scan(names))

    def _described(self, names: list[str]) -> tuple[pa.Schema, Columns]:
        for name in names:
            try:
                schema = parquet.read_schema(within(self.place, name))
            except FileNotFoundError:
                continue
            except Broken as error:
                if len(names) > 1 and not isinstance(error, PermissionError):
                    continue  # it is being written
                raise _unreadable(within(self.place, name), error) from None
            return schema, columns_in(schema, self.options, str(self.place))
        raise NotAStoreError(
            f"{self.place} has no Parquet file.",
            hint="A store of this kind is a file, or a folder of files that end in .parquet.",
        )

    def _scan(self, names: list[str]) -> Iterator[tuple[Key, int, str | None]]:
        for name in names:
            first, file = self._total, within(self.place, name)
            try:
                for batch in batches(file, self.columns, self.plain[name]):
                    self._keep(self._total, batch.vectors)
                    for of, key in enumerate(batch.keys):
                        text, raw = batch.texts[of], batch.vectors[of]
                        self._without_text += raw is not None and text is None
                        if raw is not None:
                            yield key, self._total + of, text
                            if not text:
                                self._lacking["text"].append(key)
                        elif text is not None:
                            self._lacking["vector"].append(key)
                    self._total += len(batch.keys)
            except Broken as error:
                if name == ITSELF or isinstance(error, PermissionError):
                    raise _unreadable(file, error) from None
                continue  # gone, or being written
            self.parts[name] = Part(first, self.files[name])

    def _keep(self, at: int, vectors: list[bytes | None]) -> None:
        """Keep vectors; those of another size than the first are kept apart, as they are wrong."""
        sizes = [len(raw) for raw in vectors if raw is not None]
        if self._vectors is None and sizes:
            kind = self.schema.field(self.columns.vector).type
            fixed = pa.types.is_fixed_size_list(kind)
            self._size = 4 * kind.list_size if fixed else sizes[0]
            self._vectors = Vectors(self._size, self.scratch)
        pairs = [(at + of, raw) for of, raw in enumerate(vectors) if raw is not None]
        self._odd |= {where: raw for where, raw in pairs if len(raw) != self._size}
        if self._vectors:
            self._vectors.put((where, raw) for where, raw in pairs if len(raw) == self._size)

    def rows(self, *, after: Key | None, vectors: bool) -> Iterator[Row]:
        """Yield the rows with a vector, in the order of their keys."""
        for key, at, text in self.keys.texts(after):
            raw = b""
            if vectors:
                assert self._vectors  # this row has one
                raw = self._odd.get(at) or self._vectors.read(at, 1)[0].tobytes()
            yield Row(key, text, raw)

    @property
    def dimensions(self) -> int:
        """Of its vectors; 0 if there is none, and their size is nowhere stated."""
        kind = self.schema.field(self.columns.vector).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else self._size // 4

    def shape(self) -> Shape:
        """Count rows."""
        return Shape(
            rows=len(self.keys) - self._without_text,
            dimensions=self.dimensions,
            without_vector=len(self._lacking["vector"]),
            without_text=self._without_text,
        )

    def lacking(self) -> Lacking:
        """Return the keys of rows with only one of text and vector."""
        return Lacking(**{what: sorted(each, key=order_of) for what, each in self._lacking.items()})

    def search(self, vector: bytes, count: int) -> list[Key]:
        """Compare with every row."""
        wanted = np.frombuffer(vector, "<f4")
        nearest: list[tuple[float, int]] = []
        for at in range(0, self._total if self._vectors else 0, BATCH):
            assert self._vectors
            some, missing = self._vectors.read(at, min(BATCH, self._total - at))
            far = np.where(missing, np.inf, np.linalg.norm(some - wanted, axis=1))
            found = [(float(far[of]), at + int(of)) for of in np.argsort(far)[:count]]
            nearest = sorted(nearest + found)[:count]
        return [self.keys.at(at) for distance, at in nearest if distance < np.inf]


def _unreadable(file: Path, error: BaseException) -> NotAStoreError:
    return NotAStoreError(
        f"{file} cannot be read: {error}.", hint="Correct its permissions, or write it again."
    )
