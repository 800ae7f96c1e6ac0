"""Store kind `qdrant`: a collection of points in a folder of Qdrant's local mode, or on a server.

Programs should find the collection by an alias: moving that is one step. The stamp is in the
metadata of the collection that the alias means, so it changes with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from emberd.errors import NotAStoreError, StoreError
from emberd.files import bytes_in
from emberd.stores.base import Stamp
from emberd.stores.beside.engine import NOTE
from emberd.stores.beside.replacement import between, is_ours, present
from emberd.stores.beside.store import BesideStore
from emberd.stores.choice import chosen
from emberd.stores.probing import answer_of
from emberd.stores.qdrant import clients
from emberd.stores.qdrant.engine import QdrantEngine

MOMENT = (
    "{name} is the collection's own name, and Qdrant cannot rename a collection. At the swap it is"
    " deleted, after it was copied, and an alias {name} is made: for that moment programs find"
    " nothing, and what they write in it is lost. End the programs that write. The next swap is in"
    " one step, as it moves the alias."
)
STRAYS = (
    "Programs cannot be locked out. What they write to the old collection until the alias {name}"
    " has moved, or by that collection's own name after it, is embedded and carried over"
    " afterwards; until then a search does not find it."
)
NAMES = "Name an alias or a collection that is there with `--option collection=NAME`."
ROOM = "The old collection stays until the backup is deleted: the server needs room for both."


class QdrantStore(BesideStore):
    """One collection.

    Args:
        place: the folder, or the URL of a server (`?api_key=KEY`).
        collection: the alias, or the collection's own name; required if there are several.
        text: the field of the payload that has the text.
        vector: the name of the vector, if it has one.
    """

    kind: ClassVar[str] = "qdrant"
    rounds_vectors: ClassVar[bool] = True  # for cosine, Qdrant normalizes them

    def __init__(
        self,
        place: Path | str,
        *,
        collection: str | None = None,
        text: str = "text",
        vector: str = "",
    ) -> None:
        super().__init__(place)
        self._place = place
        self._name = collection
        self._text = text
        self._vector = vector
        self._can_write = True

    @classmethod
    def recognises(cls, place: Path | str) -> bool:
        """Whether a folder says that it is one, or a server that it is Qdrant."""
        if isinstance(place, Path):
            try:
                return bool(clients.read_meta(place))
            except NotAStoreError:
                return False
        return "qdrant" in str(answer_of(place, "/").get("title", "")).lower()

    @cached_property
    def engine(self) -> QdrantEngine:
        """Open the folder, which nobody else can then, or the server."""
        if isinstance(self._place, Path):
            clients.read_meta(self._place)
            client, self._can_write, turn = clients.of_folder(self._place, self)
        else:
            client, turn = clients.of_server(self._place, self), nullcontext()
        engine = QdrantEngine(
            client, self._name or "", text=self._text, vector=self._vector,
            place=self.address, exact=self.path is None,
            text_indexes=partial(_text_indexes, self.path), turn=turn,
        )  # fmt: skip
        if not self._name:
            engine.name = self._name = self._only(engine.names(), engine.aliases())
        return engine

    @property
    def part(self) -> str:
        """The alias, or the collection."""
        if not self._name and isinstance(self._place, Path):
            meta = clients.read_meta(self._place)
            self._name = self._only(meta["collections"], meta["aliases"])
        return self._name or self.engine.name

    def _only(self, collections: Iterable[str], aliases: Mapping[str, str]) -> str:
        """Return the name by which programs find the collection, if there is just one."""
        behind = set(aliases.values())
        names = {*aliases, *(one for one in collections if one not in behind and not is_ours(one))}
        return chosen(None, names, place=self.address, what="collection", option="collection")

    @property
    def caveats(self) -> Sequence[str]:
        """What Qdrant cannot promise."""
        fixed = self.engine.is_fixed(present(self.engine))
        own = (MOMENT if fixed else STRAYS).format(name=self.engine.name)
        return (own,) if self.path else (own, ROOM)

    def stamp(self) -> Stamp | None:
        """Read it from the metadata; of a folder without opening it, so that others may have it."""
        if not isinstance(self._place, Path):
            return super().stamp()
        meta, name = clients.read_meta(self._place), self.part
        collections: Mapping[str, Any] = meta["collections"]
        found = meta["aliases"].get(name, name)
        if found not in collections:
            found = between(collections, name)
        if found is None:
            raise NotAStoreError(f"{self._place} has no collection or alias {name}.", hint=NAMES)
        note = (collections[found].get("metadata") or {}).get(NOTE)
        return Stamp.from_json(str(note.get("stamp"))) if note else None

    def bytes_here(self) -> int:
        """Return what the collection's folder takes."""
        if self.path is None:
            return 0
        folder = self.path / "collection" / present(self.engine)
        return bytes_in(folder)

    def require_writable(self) -> None:
        """Raise `StoreError` if the folder could only be opened as a copy."""
        present(self.engine)  # opened only now, perhaps
        if not self._can_write:
            raise StoreError(
                f"{self.address} cannot be written.", hint="Correct the permissions of the folder."
            )


def _text_indexes(folder: Path | None, collection: str) -> Mapping[str, Any]:
    """Return the text indexes of a collection in a folder, which are not in its description."""
    if folder is None:
        return {}
    from qdrant_client.http import models

    kept = clients.read_meta(folder).get("text_indexes", {}).get(collection, {})
    return {field: models.TextIndexParams(**params) for field, params in kept.items()}
