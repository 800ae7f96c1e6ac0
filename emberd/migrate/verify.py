"""Checks a store after the commit: reads it again, and compares it with the sidecar and the model.

Others may be writing at the same time, so a row only counts as wrong if nobody else can have
changed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from emberd.errors import MigrationError, NoServerError, UnavailableError
from emberd.migrate.embedding import embed
from emberd.migrate.likeness import SAME, likeness
from emberd.migrate.sampling import SAMPLE, positions, vectors_of
from emberd.migrate.sidecar import Staged as Ours
from emberd.migrate.stage import Staged
from emberd.stores.base import Copy, Key, Row, Store, address_of, rounds_vectors
from emberd.stores.passes import search_all, watched

SEARCHES = 10
SEARCH_TRIES = 5
NEAREST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """The outcome for one store.

    `copies` are the columns that held copies of its vectors before; those that were not replaced
    still hold the old ones. `set_aside` vectors have no text, and are in `set_aside_in` (in words);
    `completed` ones had none at the swap and got one just after. `late` rows were written to the
    old vectors' place during the swap, and brought over. `index_s` of `locked_s` went into indexes.
    `strays` are rows written since in another space, `gone` rows deleted since. If the model could
    not be asked, `unverified` says why, and `strays` are all rows written since. `lowest_cosine` is
    None if no row was embedded again, for that reason or because there is no row.
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
    index_s: float = 0.0
    set_aside: int = 0
    set_aside_in: str | None = None
    copies: Sequence[Copy] = ()


@dataclass(slots=True)
class _Found:
    """The store beside the sidecar.

    `sample` are rows as they were staged, evenly spread; `written` those that are not so, `unlike`
    of which have the same text with another vector; and `gone` are no longer there.
    """

    sample: list[Row] = field(default_factory=list)
    written: list[Row] = field(default_factory=list)
    unlike: int = 0
    gone: int = 0


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
    with watched(store) as is_written_to:
        shape = store.inspect()
        found = _compare_with_staged(staged, shape.rows)
        if shape.dimensions != staged.target.dimensions:
            wanted = staged.target.dimensions
            raise _wrong(store, f"it has {shape.dimensions} dimensions, not {wanted}")
        if shape.dtype != staged.target.dtype:
            raise _wrong(store, f"its numbers are {shape.dtype}, not {staged.target.dtype}")
        if found.unlike and not (_others_wrote(staged)):
            what = f"{found.unlike} rows do not have the vectors that were put there"
            raise _wrong(store, what)
        comparison = _compare_with_model(staged, found.sample)
        _check_search(staged, found.sample[:: max(1, len(found.sample) // SEARCHES)])
        if is_written_to():  # look once more, as late as possible
            found = _compare_with_staged(staged, shape.rows)
    _count_strays(staged, found.written, comparison)
    lowest = comparison.lowest_cosine
    return Migrated(
        rows=len(staged.sidecar),
        embedded=staged.embedded,
        embed_s=round(staged.embed_s, 2),
        locked_s=round(staged.locked_s, 2),
        lowest_cosine=None if lowest is None else round(lowest, 6),
        backup=None,
        strays=comparison.strays,
        gone=found.gone,
        unverified=comparison.unverified,
        completed=staged.textless.completed,
        late=staged.late,
        index_s=round(staged.index_s, 2),
        set_aside=staged.textless.left,
        set_aside_in=staged.textless.set_aside_in,
        copies=staged.copies,
    )


def _compare_with_staged(staged: Staged, rows: int) -> _Found:
    """Compare every row with the sidecar."""
    places, found, place = positions(rows, SAMPLE), _Found(), -1
    for row, ours in staged.sidecar.beside(staged.ref.store.rows()):
        if row is None:  # a count would prove nothing, because others may write
            found.gone += 1
            continue
        place += 1
        if not (ours and _is_in(staged, ours, row)):
            found.written.append(row)
            found.unlike += bool(ours and ours.is_of(row))
        elif place in places:
            found.sample.append(row)
    return found


def _others_wrote(staged: Staged) -> bool:
    """Whether anything was written since the swap; by a digest, which reads all of the store."""
    return bool(staged.textless.completed or staged.late or staged.place.is_written_to())


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


def _check_search(staged: Staged, sample: Sequence[Row]) -> None:
    """Search for rows by their own vectors; others may be changing the store meanwhile.

    Raises:
        MigrationError: a row that is still there is not found, and no other one is as near.
    """
    store = staged.ref.store
    for _ in range(SEARCH_TRIES):
        found = search_all(store, [row.vector for row in sample], NEAREST)
        firsts = {row: next(iter(keys), None) for row, keys in zip(sample, found, strict=True)}
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
