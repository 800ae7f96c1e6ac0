"""What a kind's `Subject` is: a store of its engine, and sessions of a program that uses it."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol, Self

from emberd.stores.base import Key
from emberd.vectors import Matrix

Rows = dict[Key, tuple[str, Matrix]]
"""The text of each key, and its vector `(D,)`, float32."""


class Session(Protocol):
    """A program that has the store open by the engine's own client library."""

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Add or replace a row."""
        ...

    def delete(self, key: Key) -> None:
        """Delete a row, if it is there."""
        ...

    def rows(self) -> Rows:
        """Read all of it, as one look."""
        ...

    def is_migrated(self) -> bool:
        """Whether it has emberd's stamp."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Subject(Protocol):
    """One store; a context manager that runs its engine.

    `entry` is what the configuration says of it. `one_process`: the engine lets one process only in
    at a time, so sessions are those of threads. `may_miss`: for a moment, readers may be told that
    there is no such store. A subject may have `copied() -> Rows`, the rows that an undo put aside.
    """

    name: ClassVar[str]
    one_process: ClassVar[bool]
    entry: dict[str, Any]

    def __init__(self, folder: Path) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def key(self, number: int) -> Key:
        """Return the key of the row with this number; never the same for two."""
        ...

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the store."""
        ...

    def reset(self) -> None:
        """Have it as `create` made it, as if it had never been migrated."""
        ...

    def session(self) -> Session:
        """Open one, in the process that uses it."""
        ...


def subjects() -> Iterator[type[Subject]]:
    """Yield the subject of every kind."""
    package = import_module("tests.migrate.kinds")
    for module in iter_modules(package.__path__):
        found = getattr(import_module(f"tests.migrate.kinds.{module.name}"), "Subject", None)
        if found and module.name != "base":
            yield found
