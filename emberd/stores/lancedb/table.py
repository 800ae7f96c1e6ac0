"""One version of a Lance table: its columns, its rows in the order of their keys, what it notes.

Rows lie as they were written. Their keys are sorted in a temporary file, once for each version, and
texts and vectors are taken from the table in that order, some thousand at a time.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from emberd.errors import NotAStoreError, StoreError
from emberd.stores import arrow
from emberd.stores.base import Key, Lacking, Row, Shape, Stamp
from emberd.stores.in_order import order_of
from emberd.stores.scratch import BATCH, Keys

LATE = b"emberd.late"  # the version before the swap, and its fragments that the swap left out
INDEXES = b"emberd.indexes"  # what to make again on the column of vectors
TAG = "emberd-"  # what the names of our tags begin with
QUIET = ("CreateIndex", "UpdateConfig", "Rewrite", "ReserveFragments")  # these change no row
UNKNOWN = "of unknown changes"
FUNCTIONS = b"embedding_functions"  # LanceDB's own list of what embeds for which column


def open_table(
    folder: Path, options: Mapping[str, str | None], *, version: int | None = None
) -> "LanceTable":
    """Open a table, at its latest version if none is given. Raises `NotAStoreError`."""
    try:
        dataset = lance.dataset(str(folder), version=version)
    except (ValueError, OSError, RuntimeError) as error:
        raise NotAStoreError(
            f"{folder} cannot be read as a table of LanceDB: {_short(error)}",
            hint="Correct the path or permissions; a newer format needs a newer `pylance`.",
        ) from None
    return LanceTable(folder, dataset, options)


class LanceTable:
    """A version of a table. `dataset` is Lance's."""

    def __init__(
        self, folder: Path, dataset: "lance.LanceDataset", options: Mapping[str, str | None]
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.version: int = dataset.version
        self._options = options
        self._folder_at = folder.stat().st_ino
        schema, where = dataset.schema, str(folder)
        self.vector = arrow.column(schema, options["vector"], "vector", where)
        arrow.require_float32(schema, self.vector, where)
        self.field: pa.Field = schema.field(self.vector)
        if not pa.types.is_fixed_size_list(self.field.type):
            raise NotAStoreError(
                f"{where}: {self.vector} has lists of any length, which LanceDB cannot search.",
                hint="Write the column again as a fixed-size list of float32.",
            )
        self.dimensions: int = self.field.type.list_size
        self.text = arrow.column(schema, options["text"], "text", where)
        self.id = arrow.column(schema, options["id"], "id", where)

    def latest(self) -> "LanceTable":
        """Return the table as it is now."""
        return open_table(self.folder, self._options)

    def at(self, version: int) -> "LanceTable":
        """Return another version. Raises `NotAStoreError` if it is gone."""
        return open_table(self.folder, self._options, version=version)

    def is_latest(self) -> bool:
        """Whether nobody has committed a version since this one, nor made the table anew."""
        try:
            there = self.folder.stat().st_ino == self._folder_at
            return there and bool(self.dataset.latest_version == self.version)
        except (ValueError, OSError, RuntimeError):
            return False

    def require_writable(self) -> None:
        """Raise `StoreError` if no version can be committed."""
        for part in ("_versions", "data"):
            if not os.access(self.folder / part, os.W_OK):
                raise StoreError(
                    f"{self.folder / part} cannot be written.", hint="Correct the permissions."
                )

    def files(self) -> set[str]:
        """Return the names of its data files."""
        found = (file for each in self.dataset.get_fragments() for file in each.data_files())
        return {Path(file.path).name for file in found}

    # -- rows ---------------------------------------------------------------------------------

    @cached_property
    def keys(self) -> Keys:
        """The keys of all rows with a vector, and their offsets in the table."""
        return Keys(self._scan())

    def _scan(self) -> Iterator[tuple[Key, int, str | None]]:
        at = 0
        wanted = {"key": quoted(self.id), "there": f"{quoted(self.vector)} IS NOT NULL"}
        for batch in self.dataset.scanner(columns=wanted, scan_in_order=True).to_batches():
            keys = arrow.keys_of(batch.column("key"), str(self.folder))
            there = batch.column("there").to_pylist()
            yield from ((key, at + of, None) for of, key in enumerate(keys) if there[of])
            at += len(keys)

    def rows(self, *, after: Key | None, vectors: bool) -> Iterator[Row]:
        """Yield rows with a vector, in the order of their keys."""
        columns = [self.text, self.vector] if vectors else [self.text]
        wanted = self.keys.after(after)
        while some := list(islice(wanted, BATCH)):
            found = self.dataset.take([at for _, at in some], columns=columns)
            texts = arrow.texts_of(found.column(self.text))
            raw: Sequence[bytes | None] = [b""] * len(some)
            if vectors:
                raw = arrow.vectors_of(found.column(self.vector))
            for (key, _), text, vector in zip(some, texts, raw, strict=True):
                yield Row(key, text, vector or b"")

    def shape(self) -> Shape:
        """Count rows."""
        return self._shape

    @cached_property
    def _shape(self) -> Shape:
        text, vector = quoted(self.text), quoted(self.vector)
        count = self.dataset.count_rows
        return Shape(
            rows=count(f"{text} IS NOT NULL AND {vector} IS NOT NULL"),
            dimensions=self.dimensions,
            without_vector=count(f"{text} IS NOT NULL AND {vector} IS NULL"),
            without_text=count(f"{text} IS NULL AND {vector} IS NOT NULL"),
        )

    def lacking(self) -> Lacking:
        """Return the keys of rows with only one of text and vector."""
        text, vector = quoted(self.text), quoted(self.vector)
        return Lacking(
            text=self._keys_where(f"({text} IS NULL OR {text} = '') AND {vector} IS NOT NULL"),
            vector=self._keys_where(f"{text} IS NOT NULL AND {vector} IS NULL"),
        )

    def _keys_where(self, condition: str) -> list[Key]:
        found = self.dataset.to_table(columns=[self.id], filter=condition)
        keys = arrow.keys_of(found.column(self.id), str(self.folder))
        return sorted(keys, key=order_of)

    def search(self, vector: bytes, count: int) -> list[Key]:
        """Return the keys of the nearest rows, by the metric of the table's index."""
        nearest: dict[str, Any] = {
            "column": self.vector, "q": np.frombuffer(vector, "<f4"), "k": count,
            "use_index": False,
        }  # fmt: skip
        if self.indexes():
            nearest["metric"] = self.indexes()[0]["metric"]
        found = self.dataset.to_table(columns=[self.id, "_distance"], nearest=nearest)
        return arrow.keys_of(found.column(self.id), str(self.folder))

    # -- what it notes ------------------------------------------------------------------------

    def stamp(self) -> Stamp | None:
        """Return what the last migration wrote into the metadata of the column of vectors."""
        return arrow.stamp_in(self.field.metadata)

    def _noted(self, what: bytes) -> Any:  # noqa: ANN401 - JSON
        kept = (self.field.metadata or {}).get(what)
        return json.loads(kept) if kept else None

    def digest(self) -> str:
        """Return the migration, and how many versions that changed rows came after it."""
        stamp = self.stamp()
        migration = stamp.migration if stamp else None
        version, changes = self.version, 0
        while made := self._transaction(version):
            if said(made) == migration and stamp:
                return f"{migration} and {changes}"
            name = type(made.operation).__name__
            if name == "Restore":
                version = made.operation.version
                continue
            if stamp is None and name not in QUIET:
                return f"version {version}"
            changes += name not in QUIET
            version -= 1
        return f"{migration} and {UNKNOWN}"

    def _transaction(self, version: int) -> Any:  # noqa: ANN401 - Lance's
        try:
            return self.dataset.read_transaction(version)
        except (ValueError, OSError, RuntimeError):
            return None

    def operations(self, first: int, last: int) -> list[str]:
        """Return the names of what made some versions."""
        made = [self._transaction(version) for version in range(first, last + 1)]
        return [type(each.operation).__name__ if each else "Unknown" for each in made]

    def indexes(self) -> list[dict[str, Any]]:
        """Return the definitions of the indexes on the column of vectors."""
        return self._indexes

    @cached_property
    def _indexes(self) -> list[dict[str, Any]]:
        found = []
        for index in self.dataset.describe_indices():
            if index.field_names != [self.vector]:
                continue
            about = self.dataset.stats.index_stats(index.name)["indices"][0]
            sub = about.get("sub_index") or {}
            found.append(
                {
                    "name": index.name,
                    "type": about["index_type"],
                    "metric": about["metric_type"],
                    "partitions": about.get("num_partitions"),
                    "sub_vectors": sub.get("num_sub_vectors"),
                    "bits": sub.get("nbits"),
                }
            )
        return found

    def wanted_indexes(self) -> list[dict[str, Any]]:
        """Return the definitions of the indexes that the last swap dropped, and are not back."""
        there = {index.name for index in self.dataset.describe_indices()}
        return [each for each in self._noted(INDEXES) or () if each["name"] not in there]

    def caveats(self) -> list[str]:
        """Say what of this table needs somebody's attention."""
        found = [
            f"The index {each['name']} of the vectors is not there: searches are right, but slow."
            " Make it with LanceDB's `create_index`."
            for each in self.wanted_indexes()
        ]
        functions = (self.dataset.schema.metadata or {}).get(FUNCTIONS)
        named = json.loads(functions) if functions else []
        found += [
            f"LanceDB itself embeds texts for {self.vector} with {each.get('name')!r}, and goes on"
            " with that model after a run: have your program embed, or name the new model there."
            for each in named
            if each.get("vector_column") == self.vector
        ]
        return found

    # -- rows that the swap left out ----------------------------------------------------------

    def late(self) -> Iterator[Row]:
        """Yield the rows that somebody wrote just before the swap, and have no vector yet."""
        noted = self._noted(LATE)
        if not noted or not noted["fragments"]:
            return
        try:
            before = self.at(noted["version"])
        except NotAStoreError:  # it was no backup any more, and is cleaned up
            return
        there = f"{quoted(self.text)} IS NOT NULL AND {quoted(before.vector)} IS NOT NULL"
        for number in noted["fragments"]:
            fragment = before.dataset.get_fragment(number)
            if fragment is None:
                continue
            for batch in fragment.to_batches(columns=[self.id], filter=there, batch_size=BATCH):
                keys = arrow.keys_of(batch.column(self.id), str(self.folder))
                yield from self._without_vector(keys)

    def _without_vector(self, keys: Sequence[Key]) -> Iterator[Row]:
        """Yield those of some rows that have a text, but no vector."""
        lacking = f"{quoted(self.text)} IS NOT NULL AND {quoted(self.vector)} IS NULL"
        for at in range(0, len(keys), BATCH):
            listed = ", ".join(map(literal, keys[at : at + BATCH]))
            found = self.dataset.to_table(
                columns=[self.id, self.text],
                filter=f"{lacking} AND {quoted(self.id)} IN ({listed})",
            )
            ours = arrow.keys_of(found.column(self.id), str(self.folder))
            texts = dict(zip(ours, arrow.texts_of(found.column(self.text)), strict=True))
            yield from (Row(key, texts[key]) for key in keys[at : at + BATCH] if texts.get(key))

    # -- versions that are kept ---------------------------------------------------------------

    def tag(self, name: str, version: int) -> None:
        """Keep a version under a name, or another one than before."""
        tags = self.dataset.tags
        (tags.update if name in tags.list() else tags.create)(name, version)

    def tagged(self, name: str) -> int | None:
        """Return the version of that name; None if there is none."""
        found = self.dataset.tags.list().get(name)
        return None if found is None else int(found["version"])

    def untag(self, name: str) -> None:
        """Keep a version no longer; harmless if there is no such name."""
        if name in self.dataset.tags.list():
            self.dataset.tags.delete(name)


def said(transaction: Any) -> str | None:  # noqa: ANN401 - Lance's
    """Return the message that a version was committed with."""
    found = transaction.transaction_properties.get("__lance_commit_message")
    return None if found is None else str(found)


def quoted(name: str) -> str:
    """Return a column's name as Lance's SQL has it."""
    return f"`{name}`"


def literal(key: Key) -> str:
    """Return a key as Lance's SQL has it."""
    if isinstance(key, int):
        return str(key)
    return "'" + key.replace("'", "''") + "'"


def _short(error: BaseException) -> str:
    """Return Lance's message without the line of its source."""
    return str(error).split(", location:")[0].split(", /")[0] + "."
