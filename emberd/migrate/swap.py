"""The swap: locks a store, fills it with its new vectors in one transaction, and commits.

Everything is in place before the commit, so that whatever must change together with the store can
be done first, or fail.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from emberd.errors import MigrationError, NoServerError, StoreBusyError, UnavailableError
from emberd.migrate.notes import Note, now
from emberd.migrate.stage import Staged, embed_rows
from emberd.migrate.textless import LOOK_S, complete_rows, listed, require_set_aside
from emberd.migrate.workplace import patiently, settings_of
from emberd.stores.base import (
    Key,
    Replacement,
    Store,
    address_of,
    locks_writers,
    part_of,
    unmoved_of,
)

BRING_S = 60.0  # how long to follow writers that go on writing to the old place
QUIET = 3  # looks that find nothing, until they seem to have changed over
TEXTS_S = 3.0  # how long to wait after a commit for texts whose vectors are already there


@contextmanager
def swapping(staged: Staged) -> Iterator[Callable[[], None]]:
    """Put the new vectors in place in one transaction; yield the function that commits it.

    Without that call, or after a kill, the store is as it was. The next run tidies up what was
    prepared (`emberd.migrate.recovery`).
    """
    with patiently(staged.ref.store.replacing) as replacement:
        began_s = time.perf_counter()
        _bring_up_to_date(staged, replacement)
        staged.place.prepare(_note(staged))
        stamp = staged.target.stamp(staged.migration, staged.chunk)
        textless = staged.textless
        if textless.keys:
            textless.set_aside_in = replacement.set_aside(textless.keys, stamp=stamp)
        with _only_vectors(staged.ref.store, replacement):
            replacement.fill(
                staged.sidecar.vectors(),
                dimensions=staged.target.dimensions,
                stamp=stamp,
            )
        staged.index_s = getattr(replacement, "index_s", 0.0)
        staged.place.filled(replacement.digest())

        def commit() -> None:
            replacement.commit()
            staged.locked_s = time.perf_counter() - began_s

        yield commit


@contextmanager
def _only_vectors(store: Store, replacement: Replacement) -> Iterator[None]:
    """Make sure that only vectors change within this context.

    Raises:
        MigrationError: a key, another column or another table is not what it was.
    """
    before = unmoved_of(replacement)
    yield
    changed = sorted({name for name, _ in before.items() ^ unmoved_of(replacement).items()})
    if changed:
        raise MigrationError(
            f"More than the vectors of {address_of(store)} would have changed: {listed(changed)}."
            " The store is as it was before.",
            hint="Please report this, with the definitions of its tables.",
        )


def _bring_up_to_date(staged: Staged, replacement: Replacement) -> None:
    """Embed what changed before the lock, and drop what is gone."""
    textless = staged.textless
    lacking, gone, textless.keys = [], [], []
    for row, ours in staged.sidecar.beside(replacement.rows(), vectors=False):
        if row is None or not row.text:
            if ours:
                gone.append(ours.key)
            if row:
                textless.keys.append(row.key)
        elif not ours or not ours.is_of(row):
            lacking.append(row)
    staged.sidecar.forget(gone)
    alone: list[Key] = []  # vectors without a row of their own
    if hasattr(replacement, "vector_keys"):
        known = {*(row.key for row in lacking), *textless.keys}
        alone = [
            key
            for key in replacement.vector_keys()
            if key not in known and not staged.sidecar.has_key(key)
        ]
        textless.keys += alone
    on_their_way = {key for key in alone if key not in textless.before}
    textless.expected = len(on_their_way)
    lasting = [key for key in textless.keys if key not in on_their_way]
    for keys, allowed in ((lasting, textless.allowed), (alone, True)):
        if keys:
            require_set_aside(staged.ref.store, replacement, keys, allowed=allowed)
    deque(embed_rows(staged, lacking), maxlen=0)


def _note(staged: Staged) -> Note:
    ref, target = staged.ref, staged.target
    settings = None
    if ref.store.settings:
        settings, _ = settings_of(ref.store, model=target.model, dimensions=target.dimensions)
    return Note(
        migration=staged.migration,
        at=now(),
        model=target.model,
        dimensions=target.dimensions,
        part=part_of(ref.store),
        rows=len(staged.sidecar),
        digest="",  # not filled yet
        name=ref.name,
        before=staged.place.known(ref.name),
        after=ref.holding(
            target.model,
            target.fingerprint,
            dtype=target.dtype,
            migration=staged.migration,
            chunk=staged.chunk,
        ),
        settings=settings,
        together=staged.joint,
    )


def bring_over(staged: Staged) -> None:
    """After the commit, embed what was written to the old place, if writers were not locked out.

    Programs may hold on to that place until they are restarted; what they write later, the next run
    brings over.
    """
    store, until_s, quiet = staged.ref.store, time.monotonic() + BRING_S, 0
    while not locks_writers(store) and quiet < QUIET and time.monotonic() < until_s:
        rows, vectors = complete_rows(store, staged.target, staged.embedder)
        staged.sidecar.put(rows, vectors)
        staged.late += len(rows)
        quiet = 0 if rows else quiet + 1
        time.sleep(LOOK_S)


def await_texts(staged: Staged) -> None:
    """After the commit, complete vectors that the swap found while their text was on its way.

    The swap may come between a vector and its text, if a program writes the text a moment later;
    the text then waits for the lock. What does not arrive within `TEXTS_S`, or cannot be embedded
    now, stays set aside until the next run completes it.
    """
    textless = staged.textless
    until_s = time.monotonic() + TEXTS_S
    while textless.completed < textless.expected:
        last = time.monotonic() > until_s  # look at the store once more after that
        with suppress(UnavailableError, NoServerError, StoreBusyError):
            rows, vectors = complete_rows(staged.ref.store, staged.target, staged.embedder)
            if rows:
                staged.sidecar.put(rows, vectors)
                textless.completed += len(rows)
        if last:
            return
        time.sleep(LOOK_S)
