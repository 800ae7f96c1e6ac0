"""Chroma's collections; see `emberd.stores.beside.engine`.

A collection is known by its UUID, and programs find it by its name, which can be changed. Giving
the name to another collection takes two steps, between which nothing has it.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any

import apsw
import numpy as np

from emberd.errors import EmberdError, NotAStoreError, StoreError
from emberd.stores.base import Key
from emberd.stores.beside.carry import batched
from emberd.stores.beside.engine import BATCH, NOTE, About, Record
from emberd.stores.chroma.clients import errors
from emberd.stores.chroma.functions import FUNCTION, follower

IDS = 50_000  # read at once: Chroma skips what comes before, each time
PAGE = 1000  # rows read at once
COLLECTIONS = 1000  # listed at once
EVERYTHING = ["documents", "metadatas", "uris"]


class ChromaEngine:
    """The collections behind one name.

    Args:
        client: of a folder or a server.
        name: of the collection.
        place: for messages.
    """

    def __init__(self, client: Any, name: str, *, place: str) -> None:  # noqa: ANN401 - optional
        self._client = client
        self.name = name
        self._place = place
        self._ids: dict[str, _Ids] = {}

    # -- names ---------------------------------------------------------------------------------

    def current(self) -> str | None:
        """Return the collection that has the name."""
        return self.known_as(self.name)

    def known_as(self, name: str) -> str | None:
        """Return the collection of this name."""
        return next((str(each.id) for each in self._collections() if each.name == name), None)

    def names(self) -> set[str]:
        """Return the names of all collections."""
        return {each.name for each in self._collections()}

    def exists(self, collection: str) -> bool:
        """Whether a collection is there."""
        return any(str(each.id) == collection for each in self._collections())

    def is_fixed(self, collection: str) -> bool:
        """No: every collection can be renamed."""
        del collection
        return False

    def switch(self, leaving: str | None, coming: str, *, aside: str) -> None:
        """Rename both, one after the other."""
        if leaving:
            self._renamed(leaving, aside)
        try:
            self._renamed(coming, self.name)
        except BaseException:
            if leaving:
                with suppress(EmberdError):  # the next command does it otherwise
                    self._renamed(leaving, self.name)
            raise

    def _renamed(self, collection: str, name: str) -> None:
        with self._asking():
            self._one(collection).modify(name=name)

    def _collections(self) -> list[Any]:
        found: list[Any] = []
        with self._asking():
            while True:
                page = self._client.list_collections(limit=COLLECTIONS, offset=len(found))
                found += page
                if len(page) < COLLECTIONS:
                    return found

    def _one(self, collection: str) -> Any:  # noqa: ANN401
        for each in self._collections():
            if str(each.id) == collection:
                return each
        raise NotAStoreError(f"{self._place} has no collection {collection}.")

    # -- collections ---------------------------------------------------------------------------

    def about(self, collection: str) -> About:
        """Describe a collection; one that is empty may not know its dimensions yet."""
        one = self._one(collection)
        with self._asking():
            rows = one.count()
        metadata = {key: each for key, each in (one.metadata or {}).items() if key != NOTE}
        found = {key: each for key, each in one.configuration_json.items() if key != FUNCTION}
        return About(
            dimensions=one.get_model().dimension or 0,  # an empty one takes any
            rows=rows,
            note=_note_of(one),
            settings={
                "the metadata": json.dumps(metadata, sort_keys=True),
                "the configuration": json.dumps(found, sort_keys=True),
            },
        )

    def note(self, collection: str) -> Mapping[str, Any] | None:
        """Return a collection's note."""
        return _note_of(self._one(collection))

    def function(self, collection: str) -> Mapping[str, Any]:
        """Return what a collection says of its embedding function."""
        found: Mapping[str, Any] = self._one(collection).configuration_json.get(FUNCTION) or {}
        return found

    def create(
        self, name: str, *, like: str, dimensions: int, note: Mapping[str, Any] | None
    ) -> str:
        """Create an empty collection with another's metadata and configuration."""
        del dimensions  # the first vector decides
        one = self._one(like)
        model = json.loads(note["stamp"])["model"] if note else None
        configuration = {
            key: each for key, each in one.configuration_json.items() if key != FUNCTION and each
        }
        metadata = {key: each for key, each in (one.metadata or {}).items() if key != NOTE}
        if note:
            metadata[NOTE] = json.dumps(note)
        with self._asking():
            made = self._client.create_collection(
                name,
                configuration=configuration,
                metadata=metadata or None,
                embedding_function=follower(self.function(like), model),
            )
        return str(made.id)

    def delete(self, collection: str) -> None:
        """Delete a collection."""
        with suppress(NotAStoreError), self._asking():
            self._client.delete_collection(self._one(collection).name)

    # -- rows ----------------------------------------------------------------------------------

    def records(
        self,
        collection: str,
        *,
        after: Key | None = None,
        vectors: bool = False,
        others: bool = False,
        without: bool | None = False,
    ) -> Iterator[Record]:
        """Sort the ids, as Chroma has no order; every row has a vector."""
        del others  # everything is read anyway
        if without:
            return
        one = self._one(collection)
        ids = self._ids.get(collection)
        if after is None or ids is None:
            ids = self._ids[collection] = _Ids(self._every_id(one))
        for batch in ids.after(str(after) if after is not None else None):
            found = {row.key: row for row in self._read(one, batch, vectors=vectors)}
            yield from (found[key] for key in batch if key in found)

    def _every_id(self, one: Any) -> Iterator[str]:  # noqa: ANN401
        offset = 0
        while True:
            with self._asking():
                page = one.get(limit=IDS, offset=offset, include=[])["ids"]
            yield from page
            offset += len(page)
            if len(page) < IDS:
                return

    def _read(self, one: Any, ids: Sequence[str], *, vectors: bool) -> list[Record]:  # noqa: ANN401
        include = [*EVERYTHING, "embeddings"] if vectors else EVERYTHING
        with self._asking():
            found = one.get(ids=list(ids), include=include)
        rows = zip(
            found["ids"],
            found["documents"],
            found["metadatas"],
            found["uris"] or [None] * len(found["ids"]),
            found["embeddings"] if vectors else [()] * len(found["ids"]),
            strict=True,
        )
        return [
            Record(
                key=key,
                text=document,
                digest=_digest(document, metadata, uri),
                vector=np.asarray(vector, "<f4").tobytes(),
                rest=(document, metadata, uri),
            )
            for key, document, metadata, uri, vector in rows
        ]

    def fetch(self, collection: str, keys: Sequence[Key]) -> list[Record]:
        """Return rows with everything."""
        ids = [str(key) for key in keys]
        return self._read(self._one(collection), ids, vectors=True) if ids else []

    def add(self, collection: str, records: Iterable[Record]) -> int:
        """Add rows."""
        one, count = self._one(collection), 0
        for batch in batched(records, BATCH):
            with self._asking():
                one.add(**_written(batch, [row.rest[1] for row in batch]))
            count += len(batch)
        return count

    def put(self, collection: str, records: Sequence[Record]) -> None:
        """Write whole rows: an upsert alone would keep metadata that a row no longer has."""
        one = self._one(collection)
        there = {row.key: row.rest[1] or {} for row in self.fetch(collection, _keys(records))}
        metadatas = [
            {**dict.fromkeys(there.get(row.key, {})), **(row.rest[1] or {})} or None
            for row in records
        ]
        with self._asking():
            one.upsert(**_written(records, metadatas))

    def remove(self, collection: str, keys: Sequence[Key]) -> None:
        """Delete rows."""
        with self._asking():
            self._one(collection).delete(ids=[str(key) for key in keys])

    def nearest(self, collection: str, vector: bytes, count: int) -> list[Key]:
        """Ask the index."""
        query = np.frombuffer(vector, "<f4")[None]
        with self._asking():
            found = self._one(collection).query(query_embeddings=query, n_results=count, include=[])
        return list(found["ids"][0])

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of the client into ours."""
        try:
            with warnings.catch_warnings():
                # of collections whose function cannot be recorded: they are copied as they are
                warnings.simplefilter("ignore", DeprecationWarning)
                yield
        except errors() as error:
            what = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise StoreError(
                f"{self._place}: Chroma refuses, or cannot be reached: {what}.",
                hint="Check that the server runs, or that the folder can be written.",
            ) from None


class _Ids:
    """Ids in the order of their code points, in a file that SQLite deletes by itself."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._db = apsw.Connection("")
        self._db.execute("CREATE TABLE ids(id TEXT PRIMARY KEY) WITHOUT ROWID")
        for batch in batched(ids, IDS):
            with self._db:
                self._db.executemany(
                    "INSERT OR IGNORE INTO ids VALUES (?)", ((each,) for each in batch)
                )

    def after(self, last: str | None) -> Iterator[list[str]]:
        """Yield the ids after this one, a few at a time."""
        while True:
            found = self._db.execute(
                "SELECT id FROM ids WHERE ?1 IS NULL OR id > ?1 ORDER BY id LIMIT ?2",
                (last, PAGE),
            )
            if not (batch := [key for (key,) in found]):
                return
            yield batch
            last = batch[-1]


def _keys(records: Sequence[Record]) -> list[Key]:
    return [row.key for row in records]


def _note_of(one: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
    """Return our note, which Chroma keeps as text."""
    with suppress(ValueError, TypeError):
        found = json.loads((one.metadata or {})[NOTE]) if NOTE in (one.metadata or {}) else None
        return found if isinstance(found, dict) else None
    return None


def _digest(document: str | None, metadata: Mapping[str, Any] | None, uri: str | None) -> bytes:
    kept = json.dumps([document, metadata or None, uri], sort_keys=True, default=str)
    return blake2b(kept.encode(), digest_size=16).digest()


def _written(rows: Sequence[Record], metadatas: Sequence[Any]) -> dict[str, Any]:
    """Return what `add` and `upsert` take; a list of which nothing is known is left out."""
    uris = [row.rest[2] for row in rows]
    return {
        "ids": _keys(rows),
        "embeddings": np.stack([np.frombuffer(row.vector, "<f4") for row in rows]),
        "documents": [row.rest[0] for row in rows],
        "metadatas": list(metadatas),
        **({"uris": uris} if any(uris) else {}),
    }
