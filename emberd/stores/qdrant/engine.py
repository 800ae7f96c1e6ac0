"""Qdrant's collections and aliases; see `emberd.stores.beside.engine`.

Programs find a collection by an alias, which one request moves to another collection, or by its
own name. A collection cannot be renamed: its own name can only become an alias when it is deleted.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from emberd.errors import NotAStoreError, StoreBusyError, StoreError
from emberd.stores.base import Key
from emberd.stores.beside.carry import batched
from emberd.stores.beside.engine import BATCH, NOTE, About, Record

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.http import models

PAGE = 1000  # points read at once


class QdrantEngine:
    """The collections behind an alias or a collection's own name.

    Args:
        client: of a folder or a server.
        name: the alias, or the collection.
        text: the field of the payload that has the text.
        vector: the name of the vector; "" for the one without a name.
        place: for messages.
        exact: whether to say that a search has to be exact; local mode always is.
        text_indexes: what local mode knows of a collection's indexes, and does not tell.
        turn: is held while the client is used, which others use too.
    """

    def __init__(  # noqa: PLR0913 - what a folder and a server differ in
        self,
        client: "QdrantClient",
        name: str,
        *,
        text: str,
        vector: str,
        place: str,
        exact: bool = True,
        text_indexes: Callable[[str], Mapping[str, Any]] = lambda _name: {},
        turn: AbstractContextManager[Any] = nullcontext(),  # noqa: B008 - it has no state
    ) -> None:
        self._client = client
        self.name = name
        self._text = text
        self._vector = vector
        self._place = place
        self._exact = exact
        self._text_indexes = text_indexes
        self._turn = turn

    # -- names ---------------------------------------------------------------------------------

    def current(self) -> str | None:
        """Return the collection that the alias means, or that has the name itself."""
        return self.aliases().get(self.name) or self.known_as(self.name)

    def aliases(self) -> dict[str, str]:
        """Return all aliases, with the collection that each means."""
        with self._asking():
            found = self._client.get_aliases().aliases
        return {each.alias_name: each.collection_name for each in found}

    def known_as(self, name: str) -> str | None:
        """Return the name itself, which cannot be changed."""
        return name if name in self.names() else None

    def names(self) -> set[str]:
        """Return the names of all collections."""
        with self._asking():
            return {each.name for each in self._client.get_collections().collections}

    def exists(self, collection: str) -> bool:
        """Whether a collection is there."""
        return collection in self.names()

    def is_fixed(self, collection: str) -> bool:
        """Whether programs use the collection's own name."""
        return collection == self.name

    def switch(self, leaving: str | None, coming: str, *, aside: str) -> None:
        """Move the alias in one request; or delete the collection, and make its name an alias."""
        from qdrant_client.http import models

        del aside  # nothing is renamed
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=coming, alias_name=self.name)
        )
        with self._asking():
            if leaving and self.is_fixed(leaving):
                self._client.delete_collection(leaving)
            elif leaving:
                alias = models.DeleteAlias(alias_name=self.name)
                delete = models.DeleteAliasOperation(delete_alias=alias)
                self._client.update_collection_aliases([delete, create])
                return
            self._client.update_collection_aliases([create])

    # -- collections ---------------------------------------------------------------------------

    def about(self, collection: str) -> About:
        """Describe a collection; counts exactly."""
        info, params = self._info(collection), self._params(collection)
        with self._asking():
            rows = self._client.count(collection, exact=True).count
        note = (getattr(info.config, "metadata", None) or {}).get(NOTE)
        return About(
            dimensions=params.size,
            rows=rows,
            note=note,
            settings=self._settings(collection, info),
        )

    def note(self, collection: str) -> Mapping[str, Any] | None:
        """Return a collection's note."""
        info = self._info(collection)
        found: Mapping[str, Any] | None = (getattr(info.config, "metadata", None) or {}).get(NOTE)
        return found

    def _info(self, collection: str) -> "models.CollectionInfo":
        if not self.exists(collection):
            raise NotAStoreError(f"{self._place} has no collection {collection}.")
        with self._asking():
            return self._client.get_collection(collection)

    def _params(self, collection: str) -> "models.VectorParams":
        """Return the parameters of the vector.

        Raises:
            NotAStoreError: there is no such vector, or it is of a kind that no model makes.
        """
        vectors = self._info(collection).config.params.vectors
        named = vectors if isinstance(vectors, dict) else {"": vectors}
        known = ", ".join(repr(name) for name in named if name) or "one without a name"
        found = named.get(self._vector)
        if found is None:
            raise NotAStoreError(
                f"{self._place}: {collection} has no vector"
                + (f" {self._vector}." if self._vector else " without a name."),
                hint=f"Name it with `--option vector=NAME`; it has: {known}.",
            )
        if found.multivector_config or str(found.datatype or "").lower().endswith("uint8"):
            raise NotAStoreError(
                f"{self._place}: the vector of {collection} is a multivector, or of uint8.",
                hint="Only one vector of floats for each point can be migrated.",
            )
        return found

    def _settings(self, collection: str, info: "models.CollectionInfo") -> Mapping[str, str]:
        """Return every setting except the size of the vector, as text."""
        config = info.config.model_dump(mode="json")
        vectors = config["params"]["vectors"]
        (vectors[self._vector] if self._vector else vectors).pop("size")
        (config.get("metadata") or {}).pop(NOTE, None)
        config["metadata"] = config.get("metadata") or None
        found = {f"the setting {key}": json.dumps(each) for key, each in config.items()}
        schema = {
            field: [index.data_type, index.params and index.params.model_dump(mode="json")]
            for field, index in (info.payload_schema or {}).items()
        }
        found["the payload indexes"] = json.dumps(schema, sort_keys=True, default=str)
        return found

    def create(
        self, name: str, *, like: str, dimensions: int, note: Mapping[str, Any] | None
    ) -> str:
        """Create an empty collection with another's settings, indexes and metadata."""
        from qdrant_client.http import models

        info = self._info(like)
        config, params = info.config, info.config.params
        if params.sharding_method == models.ShardingMethod.CUSTOM:
            raise StoreError(
                f"{self._place}: {like} has shard keys, and emberd does not know which rows belong"
                " to which.",
                hint="Embed its rows into a new collection.",
            )
        sized = self._params(like).model_copy(update={"size": dimensions})
        vectors = {**params.vectors, self._vector: sized} if self._vector else sized  # type: ignore[dict-item]
        rest = {key: each for key, each in (config.metadata or {}).items() if key != NOTE}
        metadata = {**rest, NOTE: dict(note)} if note else rest
        with self._asking():
            self._client.create_collection(
                name,
                vectors_config=vectors,
                sparse_vectors_config=params.sparse_vectors,
                shard_number=params.shard_number,
                replication_factor=params.replication_factor,
                write_consistency_factor=params.write_consistency_factor,
                on_disk_payload=params.on_disk_payload,
                hnsw_config=_as(models.HnswConfigDiff, config.hnsw_config),
                optimizers_config=_as(models.OptimizersConfigDiff, config.optimizer_config),
                wal_config=_as(models.WalConfigDiff, config.wal_config),
                quantization_config=config.quantization_config,
                strict_mode_config=_as(models.StrictModeConfig, config.strict_mode_config),
                metadata=metadata or None,
            )
            indexes = {
                field: index.params or index.data_type.value
                for field, index in (info.payload_schema or {}).items()
            }
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # local mode says which of them it does not use
                for field, schema in {**indexes, **self._text_indexes(like)}.items():
                    self._client.create_payload_index(name, field, schema, wait=True)
        return name

    def delete(self, collection: str) -> None:
        """Delete a collection, and in a folder what a process that died has left of it."""
        with self._asking():
            self._client.delete_collection(collection)

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
        """Scroll: Qdrant's order is numbers, then UUIDs."""
        from qdrant_client.http import models

        chosen = None
        if self._vector and without is not None:
            has = models.HasVectorCondition(has_vector=self._vector)
            chosen = models.Filter(must_not=[has]) if without else models.Filter(must=[has])
        elif without:
            return  # a vector without a name is there for every point
        wanted: bool | list[str] = [self._vector] if self._vector and vectors else vectors
        if others:
            wanted = True if vectors else self._other_vectors(collection)
        offset: Any = after
        while True:
            with self._asking():
                points, offset = self._client.scroll(
                    collection,
                    scroll_filter=chosen,
                    limit=PAGE,
                    offset=offset,
                    with_payload=True,
                    with_vectors=wanted,
                )
            for point in points:
                if after is None or point.id != after:
                    yield self._record(point)
            if offset is None:
                return

    def _other_vectors(self, collection: str) -> list[str] | bool:
        params = self._info(collection).config.params
        named = set(params.vectors) if isinstance(params.vectors, dict) else set()
        return sorted((named | set(params.sparse_vectors or {})) - {self._vector}) or False

    def _record(self, point: "models.Record") -> Record:
        payload = point.payload or {}
        vectors = point.vector if isinstance(point.vector, dict) else {"": point.vector}
        raw = vectors.get(self._vector)
        others = {name: each for name, each in vectors.items() if each and name != self._vector}
        text = payload.get(self._text)
        digest = blake2b(json.dumps(payload, sort_keys=True, default=str).encode(), digest_size=16)
        return Record(
            key=point.id if isinstance(point.id, int) else str(point.id),
            text=text if isinstance(text, str) else None,
            digest=digest.digest(),
            vector=np.asarray(raw, "<f4").tobytes() if raw else b"",
            rest=(payload, others),
        )

    def fetch(self, collection: str, keys: Sequence[Key]) -> list[Record]:
        """Return points with all their vectors."""
        with self._asking():
            found = self._client.retrieve(
                collection, list(keys), with_payload=True, with_vectors=True
            )
        return [self._record(point) for point in found]

    def add(self, collection: str, records: Iterable[Record]) -> int:
        """Upsert: there is no other way to write points."""
        count = 0
        for batch in batched(records, BATCH):
            self.put(collection, batch)
            count += len(batch)
        return count

    def put(self, collection: str, records: Sequence[Record]) -> None:
        """Upsert whole points."""
        from qdrant_client.http import models

        points = []
        for record in records:
            payload, vectors = record.rest
            own = np.frombuffer(record.vector, "<f4").tolist()
            named = {**vectors, self._vector: own} if own else vectors
            alone: Any = named.get("") if set(named) == {""} else named
            points.append(models.PointStruct(id=record.key, vector=alone, payload=payload))
        with self._asking():
            self._client.upsert(collection, points, wait=True)

    def remove(self, collection: str, keys: Sequence[Key]) -> None:
        """Delete points."""
        with self._asking():
            self._client.delete(collection, list(keys), wait=True)

    def nearest(self, collection: str, vector: bytes, count: int) -> list[Key]:
        """Search; exactly on a server, where an index may still be in the making."""
        from qdrant_client.http import models

        exact = models.SearchParams(exact=True) if self._exact else None
        with self._asking():
            found = self._client.query_points(
                collection,
                query=np.frombuffer(vector, "<f4").tolist(),
                using=self._vector or None,
                limit=count,
                with_payload=False,
                search_params=exact,
            )
        return [each.id if isinstance(each.id, int) else str(each.id) for each in found.points]

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Wait for our turn to use the client, and turn its errors into ours."""
        import sqlite3

        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        try:
            with self._turn:
                yield
        except sqlite3.OperationalError as error:
            raise StoreBusyError(f"{self._place} cannot be read or written: {error}.") from None
        except (ApiException, QdrantException, ValueError, RuntimeError, OSError) as error:
            raise StoreError(
                f"{self._place}: Qdrant refuses, or cannot be reached: {_first_line(error)}.",
                hint="Check that the server runs, and that the URL and its api_key are right.",
            ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _as(kind: Any, settings: Any) -> Any:  # noqa: ANN401 - models of the client
    """Return settings as those with which a collection is created."""
    if settings is None:
        return None
    known = settings.model_dump(exclude_none=True)
    return kind(**{key: each for key, each in known.items() if key in kind.model_fields})
