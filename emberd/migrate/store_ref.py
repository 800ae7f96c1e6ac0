"""A store and how people refer to it: by name or path, with options, and for which model."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emberd.errors import StoreError
from emberd.migrate.base import Store
from emberd.registry.spec import InputType
from emberd.spaces.stores import KnownStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRef:
    """A store under the name by which people know it.

    `name` is that of the config file, or the path. `options` are those that the store was opened
    with; `kind` is None where it was recognised. `served_by` is the model that its users name, None
    when they take the server's default; `input_type` is how its vectors are asked for.
    """

    name: str
    store: Store
    kind: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    served_by: str | None = None
    input_type: InputType | None = None

    @property
    def is_path(self) -> bool:
        """Whether it is known by its path alone, not configured."""
        return Path(self.name).is_absolute()

    @property
    def argument(self) -> str:
        """What names it on the command line, quoted for a shell: the name, or path and options."""
        if not self.is_path:
            return shlex.quote(self.name)
        kind = ["--kind", self.kind] if self.kind else []
        options = [word for pair in self.options.items() for word in ("-o", "=".join(pair))]
        return shlex.join([self.name, *kind, *options])

    def holding(
        self, model: str | None, fingerprint: str | None, *, migration: str | None = None
    ) -> KnownStore:
        """Return what to note of it when it holds vectors of this model and space.

        `migration` is that of its stamp, which is read without it.
        """
        if migration is None and (stamp := self.store.stamp()):
            migration = stamp.migration
        return KnownStore(
            path=str(self.store.path), kind=self.store.kind, model=model, fingerprint=fingerprint,
            migration=migration,
        )  # fmt: skip


def require_separate_files(stores: Sequence[StoreRef]) -> None:
    """Raise `StoreError` when two of them lie in one file, of which only one can be locked."""
    seen: dict[Path, str] = {}
    for ref in stores:
        other = seen.setdefault(ref.store.path.resolve(), ref.name)
        if other != ref.name:
            raise StoreError(
                f"The stores {other} and {ref.name} lie in one file, {ref.store.path}, which is"
                " locked and backed up as a whole.",
                hint="Give each a file of its own, or migrate them one by one with"
                " `emberd migrate run STORE --to MODEL --no-keep-backup`, then `emberd use MODEL`.",
            )
