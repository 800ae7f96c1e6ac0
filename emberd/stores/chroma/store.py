"""Store kind `chroma`: a collection in a folder of Chroma, or on a server.

Its name is given to a new collection in two steps, with the old one renamed first. The stamp is in
the metadata of the collection that has the name.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from emberd.errors import StoreBusyError
from emberd.files import bytes_in
from emberd.stores.beside.replacement import is_ours, present
from emberd.stores.beside.store import BesideStore
from emberd.stores.choice import chosen
from emberd.stores.chroma import clients
from emberd.stores.chroma.engine import ChromaEngine
from emberd.stores.chroma.functions import DEFAULT, MODEL, names_model
from emberd.stores.probing import answer_of

MOMENT = (
    "Chroma has no atomic step: {name} is renamed, and then the new collection gets its name. For"
    " that moment programs may be told that there is no such collection, and never see a mixture."
)
STRAYS = (
    "Programs cannot be locked out, and a collection that they have got before the swap stays the"
    " old one until they get it again. What they write to it is embedded and carried over when the"
    " run ends, and by the next run; until then a search does not find it."
)
ROOM = "The old collection stays until the backup is deleted: the server needs room for both."
OPEN = (
    "{who} has the folder open. Chroma does not expect several processes in one: what one writes,"
    " others do not find, or fail at, until they open it again. It has to end before a run."
)
FOLLOWS = (
    "The collection records an embedding function ({function}) with {key}; that of the new one"
    " names the new model, so programs that give no function of their own follow it."
)
DROPPED = (
    "The collection records the embedding function {function}, which is not the new model's, so the"
    " new one records none: programs have to pass one to `get_collection`, or embed by themselves."
)


class ChromaStore(BesideStore):
    """One collection; its documents are the texts.

    Args:
        place: the folder, or the URL of a server (`?token=TOKEN&tenant=NAME&database=NAME`).
        collection: the collection's name; required if there are several.
    """

    kind: ClassVar[str] = "chroma"
    rounds_vectors: ClassVar[bool] = True  # its index for cosine normalizes them

    def __init__(self, place: Path | str, *, collection: str | None = None) -> None:
        super().__init__(place)
        self._place = place
        self._name = collection

    @classmethod
    def recognises(cls, place: Path | str) -> bool:
        """Whether a folder has Chroma's database, or a server says that it is Chroma."""
        if isinstance(place, Path):
            return clients.is_folder(place)
        return any("heartbeat" in key for key in answer_of(place, "/api/v2/heartbeat"))

    @cached_property
    def engine(self) -> ChromaEngine:
        """Open the folder, or the server."""
        if isinstance(self._place, Path):
            client = clients.of_folder(self._place, self)
        else:
            client = clients.of_server(self._place, self)
        engine = ChromaEngine(client, self._name or "", place=self.address)
        if not self._name:
            names = (name for name in engine.names() if not is_ours(name))
            engine.name = self._name = chosen(
                None, names, place=self.address, what="collection", option="collection"
            )
        return engine

    @property
    def part(self) -> str:
        """The name."""
        return self._name or self.engine.name

    @property
    def caveats(self) -> Sequence[str]:
        """What Chroma cannot promise."""
        function = self.engine.function(present(self.engine))
        found = [MOMENT.format(name=self.engine.name), STRAYS]
        if self.path is None:
            found.append(ROOM)
        elif who := clients.holders(self.path):
            found.append(OPEN.format(who=" and ".join(who)))
        name = function.get("name")
        if names_model(function):
            found.append(FOLLOWS.format(function=name, key=f"`{MODEL}`"))
        elif name and name != DEFAULT:
            found.append(DROPPED.format(function=name))
        return found

    def require_writable(self) -> None:
        """Raise `StoreBusyError` if another process has the folder open, as far as is known."""
        who = clients.holders(self.path) if self.path else ()
        if who:
            raise StoreBusyError(
                f"{self.path} is open in {' and '.join(who)}, and Chroma does not expect several"
                " processes in a folder.",
                hint="End it, then run this again; or use a Chroma server, which lets in many.",
            )

    def bytes_here(self) -> int:
        """Return what the folder takes."""
        if self.path is None:
            return 0
        return bytes_in(self.path)
