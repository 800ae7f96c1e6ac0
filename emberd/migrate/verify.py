"""Checks a store after the commit: reads it again, and compares it with the sidecar and the model.

Others may be writing at the same time, so a row only counts as wrong if nobody else can have
changed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from emberd.errors import MigrationError, NoServerError, UnavailableError
from emberd.migrate.embedding import embed
from emberd.migrate.likeness import SAME, likeness
from emberd.migrate.sampling import SAMPLE, positions, vectors_of
from emberd.migrate.sidecar import Staged as Ours
from emberd.migrate.stage import Staged
from emberd.stores.base import Copy, Key, Row, Store, address_of, rounds_vectors

SEARCHES = 10
SEARCH_TRIES = 5
NEAREST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """The outcome for one store.

    `copies` are the columns that held copies of its vectors before; those that were not replaced
    still hold the old ones. `set_aside` vectors have no text, and are in `set_aside_in` (in words);
    `completed` ones had none at the swap and got one just after. `late` rows were written to the
    old vectors' place during the swap, and brought over. `strays` are rows written since in
    another space, `gone` rows deleted since. If the model could not be asked, `unverified` says
    why, and `strays` are all rows written since. `lowest_cosine` is None if no row was embedded
    again, for that reason or because there is no row.
    """

    rows: int
    embedded: int
    embed_s: float
    locked_s: float
    lowest_cosine: float | None
    backup: str | None
    strays: int = 0
    gone: int = 0
    unverified: str | None = None
    completed: int = 0
    late: int = 0
    set_aside: int = 0
    set_aside_in: str | None = None
    copies: Sequence[Copy] = ()


@dataclass(slots=True)
class _Comparison:
    """The result of comparing with the model; see `Migrated`."""

    lowest_cosine: float | None = None
    strays: int = 0
    unverified: str | None = None


def verify(staged: Staged) -> Migrated:
    """Read a store again that was just committed, and compare it with the model's vectors.

    If the model can no longer be asked, that does not make the store wrong.

    Raises:
        MigrationError: it is not what it should be.
    """
    store = staged.ref.store
    shape = store.inspect()
    sample = _compare_with_staged(staged, shape.rows)
    if shape.dimensions != staged.target.dimensions:
        wanted = staged.target.dimensions
        raise _wrong(store, f"it has {shape.dimensions} dimensions, not {wanted}")
    if shape.dtype != staged.target.dtype:
        raise _wrong(store, f"its numbers are {shape.dtype}, not {staged.target.dtype}")
    comparison = _compare_with_model(staged, sample)
    _check_search(staged, sample[:: max(1, len(sample) // SEARCHES)])
    written, gone = _written_since(staged)  # last, because others may be writing
    _count_strays(staged, written, comparison)
    lowest = comparison.lowest_cosine
    return Migrated(
        rows=len(staged.sidecar),
        embedded=staged.embedded,
        embed_s=round(staged.embed_s, 2),
        locked_s=round(staged.locked_s, 2),
        lowest_cosine=None if lowest is None else round(lowest, 6),
        backup=None,
        strays=comparison.strays,
        gone=gone,
        unverified=comparison.unverified,
        completed=staged.textless.completed,
        late=staged.late,
        set_aside=staged.textless.left,
        set_aside_in=staged.textless.set_aside_in,
        copies=staged.copies,
    )


def _compare_with_staged(staged: Staged, rows: int) -> list[Row]:
    """Compare every row with the sidecar; return a sample of those that are as staged."""
    places, sample, place = positions(rows, SAMPLE), [], -1
    unlike = 0  # the same text with another vector
    for row, ours in staged.sidecar.beside(staged.ref.store.rows()):
        place += row is not None
        if row and ours and not _is_in(staged, ours, row):
            unlike += ours.is_of(row)
        elif row and ours and place in places:
            sample.append(row)
    others = staged.textless.completed or staged.late or staged.place.is_written_to()
    if unlike and not others:
        raise _wrong(staged.ref.store, f"{unlike} rows do not have the vectors that were put there")
    return sample


def _compare_with_model(staged: Staged, sample: Sequence[Row]) -> _Comparison:
    """Embed the sample again; raise `MigrationError` if a vector differs."""
    if not sample:
        return _Comparison()
    try:
        again = embed(staged.embedder, [row.text or "" for row in sample], staged.target)
    except (UnavailableError, NoServerError) as error:
        return _Comparison(unverified=error.message)
    dtype = staged.target.dtype
    lowest = float(likeness(vectors_of(sample, dtype), again, dtype).min())
    if lowest < SAME[dtype]:
        found = f"a row has a cosine of {lowest:.4f} to its text embedded again"
        raise _wrong(staged.ref.store, found)
    return _Comparison(lowest_cosine=lowest)


def _written_since(staged: Staged) -> tuple[list[Row], int]:
    """Return the rows that are not as the swap left them, and how many are gone."""
    written, gone = [], 0  # a count would prove nothing, because others may write
    for row, ours in staged.sidecar.beside(staged.ref.store.rows()):
        gone += row is None
        if row and not (ours and _is_in(staged, ours, row)):
            written.append(row)
    return written, gone


def _check_search(staged: Staged, sample: Sequence[Row]) -> None:
    """Search for rows by their own vectors; others may be changing the store meanwhile.

    Raises:
        MigrationError: a row that is still there is not found, and no other one is as near.
    """
    store = staged.ref.store
    for _ in range(SEARCH_TRIES):
        firsts = {row: next(iter(store.search(row.vector, NEAREST)), None) for row in sample}
        missed = {row: key for row, key in firsts.items() if not _is_found(staged, row, key)}
        if not missed:
            return
        wanted = {*(row.key for row in missed), *missed.values()}
        now = {row.key: row for row in store.rows() if row.key in wanted}
        sample = [
            row
            for row, first in missed.items()
            if now.get(row.key) == row
            and not (first in now and _are_near(staged, row, now[first].vector))
        ]
    if sample:
        key = sample[0].key
        raise _wrong(store, f"a search for the vector of row {key!r} does not find it")


def _is_found(staged: Staged, row: Row, first: Key | None) -> bool:
    """Whether `first` is the row, has the same vector, or was just written."""
    if first is None or first == row.key:
        return first is not None
    known = staged.sidecar.has_key(first)
    return not known or _are_near(staged, row, staged.sidecar.vector(first))


def _is_in(staged: Staged, ours: Ours, row: Row) -> bool:
    """Whether a row has the vector that was put there, as far as the store gives back its bits."""
    if ours.is_in(row):
        return True
    comparable = ours.is_of(row) and len(ours.vector) == len(row.vector)
    return comparable and rounds_vectors(staged.ref.store) and _are_near(staged, row, ours.vector)


def _are_near(staged: Staged, row: Row, vector: bytes) -> bool:
    other, dtype = Row(row.key, None, vector), staged.target.dtype
    found = likeness(vectors_of([row], dtype), vectors_of([other], dtype), dtype)
    return float(found[0]) >= SAME[dtype]


def _count_strays(staged: Staged, written: Sequence[Row], comparison: _Comparison) -> None:
    """Count the rows that somebody has written since the swap with another model's vectors."""
    comparison.strays = len(written)
    if comparison.unverified is not None:
        return
    rows = [row for row in written if row.text]
    dtype = staged.target.dtype
    comparable = [row for row in rows if len(row.vector) == staged.target.vector_bytes]
    strays = len(rows) - len(comparable)
    try:
        if comparable:
            texts = [row.text or "" for row in comparable]
            again = embed(staged.embedder, texts, staged.target)
            alike = likeness(vectors_of(comparable, dtype), again, dtype)
            strays += int((alike < SAME[dtype]).sum())
        comparison.strays = strays
    except (UnavailableError, NoServerError) as error:
        comparison.lowest_cosine, comparison.unverified = None, error.message


def _wrong(store: Store, what: str) -> MigrationError:
    return MigrationError(
        f"{address_of(store)} was wrong after the swap: {what}. The store was restored as it was"
        " before.",
        hint="Run `emberd verify` on the model, and please report this.",
    )
