"""What a kind's `Subject` is: a store of its engine, and sessions of a program that uses it."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol, Self, TypeVar

from emberd.stores.base import Key
from emberd.vectors import Matrix

FORK = multiprocessing.get_context("fork")
T = TypeVar("T")
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

    `entry` is what the configuration says of it. A subject may also have `one_process`, if nobody
    can use it beside a command; `may_raise`, the errors that readers may get for a moment, by the
    names of their classes; `pause_s`, of a writer after each row; and `things() -> int`, how many
    tables, collections or tags its engine keeps.
    """

    name: ClassVar[str]
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

    def copied(self) -> Rows:
        """Read the rows that undos have put aside."""
        ...


def apart(do: Callable[[], T]) -> T:
    """Do it in a forked process: some engines that were used do not come through the next fork."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(do()))
    process.start()
    sender.close()
    try:
        found: T = receiver.recv()
    except EOFError:
        raise AssertionError("it failed in the other process") from None
    process.join()
    return found


def subjects() -> Iterator[type[Subject]]:
    """Yield the subject of every kind."""
    package = import_module("tests.migrate.kinds")
    for module in iter_modules(package.__path__):
        found = getattr(import_module(f"tests.migrate.kinds.{module.name}"), "Subject", None)
        if found and module.name != "base":
            yield found
