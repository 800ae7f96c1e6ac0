"""A store and how people refer to it: its name or path, its options, and the model it is for."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emberd.config.paths import is_url
from emberd.dtypes import STORED, Dtype
from emberd.errors import StoreError, StoreKindError
from emberd.registry.spec import InputType
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.stores import KnownStore
from emberd.stores.base import Store, address_of, dtypes_of, own_part


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRef:
    """A store under the name by which people know it.

    `name` is the name in the config file, or the path. `options` are those the store was opened
    with; `kind` is None if it was recognised. `served_by` is the model that its users ask for, None
    if they use the server's default; `input_type` is what they send with a text to store. `dtype`
    is what a migration makes of its vectors; None: what they are. `chunk` is how its users cut long
    texts into rows, as its entry states.
    """

    name: str
    store: Store
    kind: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    served_by: str | None = None
    input_type: InputType | None = None
    dtype: Dtype | None = None
    chunk: StoreChunking | None = None

    @property
    def wanted(self) -> Dtype:
        """The dtype of its vectors after a migration. Raises StoreKindError."""
        wanted = self.dtype or self.store.inspect().dtype
        if wanted not in dtypes_of(self.store):
            can = ", ".join(STORED[each] for each in dtypes_of(self.store))
            raise StoreKindError(
                f"Stores of the kind {self.store.kind} have no vectors of the type"
                f" {STORED[wanted]}.",
                hint=f"They have: {can}.",
            )
        return wanted

    @property
    def address(self) -> str:
        """Where it is, as people may see it; see `address_of`."""
        return address_of(self.store)

    @property
    def is_path(self) -> bool:
        """Whether it is known only by its path, and not configured."""
        return Path(self.name).is_absolute() or is_url(self.name)

    @property
    def argument(self) -> str:
        """How to name it on a command line, quoted for a shell: the name, or path and options."""
        if not self.is_path:
            return shlex.quote(self.name)
        kind = ["--kind", self.kind] if self.kind else []
        options = [word for pair in self.options.items() for word in ("-o", "=".join(pair))]
        return shlex.join([self.name, *kind, *options])

    def holding(
        self,
        model: str | None,
        fingerprint: str | None,
        *,
        dtype: Dtype = "float",
        migration: str | None = None,
        chunk: StoreChunking | None = None,
    ) -> KnownStore:
        """Return what to note about it if it holds vectors of this model, space and dtype.

        `migration` is the one in its stamp; if None, the stamp is read. `chunk` is how its rows
        were cut.
        """
        if migration is None and (stamp := self.store.stamp()):
            migration = stamp.migration
        return KnownStore(
            path=self.address, kind=self.store.kind, model=model, fingerprint=fingerprint,
            migration=migration, dtype=dtype, chunk=chunk, part=own_part(self.store),
        )  # fmt: skip


def require_separate_files(stores: Sequence[StoreRef]) -> None:
    """Raise `StoreError` if two of them are in the same file, where only one can be locked."""
    seen: dict[tuple[str, str], str] = {}
    for ref in stores:
        where = str(ref.store.path.resolve()) if ref.store.path else ref.address
        other = seen.setdefault((where, own_part(ref.store)), ref.name)
        if other != ref.name:
            raise StoreError(
                f"The stores {other} and {ref.name} are in the same file,"
                f" {ref.address}, which can only be locked and backed up as a whole.",
                hint="Give each its own file, or migrate them one by one with"
                " `emberd migrate run STORE --to MODEL --no-keep-backup`, then `emberd use MODEL`.",
            )
