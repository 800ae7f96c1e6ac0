"""Vectors without a text: no model can make them again, so they are refused or set aside.

Some are only waiting for their text, if a program writes the vector first and the text a moment
later. When the text of a vector that was set aside arrives, it is embedded and put back.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from emberd.errors import StoreRowsError
from emberd.migrate.embedding import Embedder, Target, embed
from emberd.migrate.sidecar import packed
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import Workplace, patiently
from emberd.spaces.compare import compare
from emberd.stores.base import (
    Key,
    Lacking,
    Replacement,
    Row,
    Store,
    address_of,
    halved_rows,
    lacking_of,
)
from emberd.vectors import Rows

LOOK_S = 0.05
LACKING_S = 1.0  # a vector without a text for this long is not waiting for one
MOST = 4096  # rows completed at a time
LISTED = 5  # keys or tables in a message


@dataclass(slots=True, kw_only=True)
class Textless:
    """What happens to the vectors without a text while one store is replaced.

    `allowed` says whether they may be set aside, `before` are those that had no text before the
    store was locked, `keys` those without one at the swap, which are moved to `set_aside_in` (in
    words). `expected` is how many texts are on their way, `completed` how many of them arrived in
    time.
    """

    allowed: bool
    before: set[Key] = field(default_factory=set)
    keys: list[Key] = field(default_factory=list)
    set_aside_in: str | None = None
    expected: int = 0
    completed: int = 0

    @property
    def left(self) -> int:
        """How many stay set aside."""
        return len(self.keys) - self.completed


def lasting_lack(store: Store) -> Lacking:
    """Return what still lacks a text after a second, because a text may be on its way."""
    lacking, until_s = lacking_of(store), time.monotonic() + LACKING_S
    while lacking.text:
        last = time.monotonic() > until_s  # look at the store once more after that
        time.sleep(2 * LOOK_S)
        now, before = lacking_of(store), set(lacking.text)
        lacking = replace(now, text=[key for key in now.text if key in before])
        if last:
            break
    return lacking


def require_set_aside(
    store: Store, replacement: Replacement, keys: Sequence[Key], *, allowed: bool
) -> None:
    """Raise `StoreRowsError` unless vectors without a text may and can be set aside."""
    able = hasattr(replacement, "set_aside")
    if able and allowed:
        return
    raise StoreRowsError(
        f"{address_of(store)}: {len(keys)} vectors have no text, or one that is NULL or empty"
        f" ({listed(map(repr, keys))}), so no model can make them again.",
        hint="Give them a text, or delete them"
        + ("; or add --set-aside, which moves them out of the store." if able else "."),
    )


def listed(found: Iterable[object]) -> str:
    """Return the first few of many, for a message."""
    first = [str(each) for each in islice(found, LISTED + 1)]
    return ", ".join([*first[:LISTED], "..."] if len(first) > LISTED else first)


def complete(ref: StoreRef, target: Target, embedder: Embedder, state: Path) -> int:
    """Put back vectors whose text arrived after they were set aside; return how many.

    Does nothing if the store is not in the target's space.
    """
    stamp = ref.store.stamp()
    if not stamp or not compare(stamp.space, target.space).is_same:
        return 0
    if not next(iter(halved_rows(ref.store)), None):
        return 0
    done = 0
    with Workplace(ref.store, state).locked():
        while True:
            rows, _ = complete_rows(ref.store, target, embedder)
            done += len(rows)
            if len(rows) < MOST:  # writers may go on for ever; the rest is for the next run
                return done


def complete_rows(store: Store, target: Target, embedder: Embedder) -> tuple[list[Row], Rows]:
    """Do what `complete` does, with a few thousand rows; return the rows, and their vectors."""
    rows = list(islice(halved_rows(store), MOST))
    if not rows:
        return rows, np.zeros((0, target.dimensions), np.float32)
    vectors = embed(embedder, [row.text or "" for row in rows], target)
    with patiently(store.replacing) as replacement:
        still = set(islice(halved_rows(store), MOST))
        places = [place for place, row in enumerate(rows) if row in still]
        rows, vectors = [rows[place] for place in places], vectors[places]
        replacement.complete(zip((row.key for row in rows), packed(vectors), strict=True))
        replacement.commit()
    return rows, vectors
