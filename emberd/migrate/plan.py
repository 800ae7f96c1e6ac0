"""Plans a migration: what it takes, whether it is needed, and what would stop it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.errors import StoreRowsError
from emberd.migrate import sidecar
from emberd.migrate.chunked import recorded_chunking, require_own_vectors
from emberd.migrate.embedding import Embedder, Target, embed, embed_at_once
from emberd.migrate.likeness import SAME, likeness
from emberd.migrate.loss import Loss, measure_loss
from emberd.migrate.sampling import SAMPLE, sampled, vectors_of
from emberd.migrate.stage import staged_rows
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.textless import lasting_lack, require_set_aside
from emberd.migrate.workplace import Workplace, settings_of
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.compare import compare
from emberd.stores.base import (
    Copy,
    Cost,
    Key,
    Lacking,
    Row,
    Shape,
    Store,
    address_of,
    caveats_of,
    copies_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What migrating a store takes.

    `there` says why nothing needs to be done; it is None if something does. `staged` rows have been
    embedded already. `loss` is what smaller vectors cost; None if they do not become smaller.
    `chunk` is how the rows were cut from longer texts. Of `sampled` rows, the new model cuts
    `truncated`, as they have more tokens than it takes. `caveats` are promises that the store's
    engine cannot keep.
    """

    shape: Shape
    lacking: Lacking
    copies: Sequence[Copy]
    target: Target
    there: str | None
    cost: Cost
    staged: int
    rows_per_s: float
    loss: Loss | None = None
    chunk: StoreChunking | None = None
    sampled: int = 0
    truncated: int = 0
    caveats: Sequence[str] = ()

    @property
    def disk_bytes(self) -> int:
        """The most disk space that is needed on top of what is in use."""
        staged = sidecar.bytes_of(self.shape.rows, self.target.vector_bytes)
        return self.cost.backup_bytes + self.cost.swap_bytes + staged

    @property
    def seconds(self) -> float:
        """How long it takes to embed what is not staged yet."""
        return (self.shape.rows - self.staged) / self.rows_per_s


def plan(
    ref: StoreRef,
    target: Target,
    embedder: Embedder,
    state: Path,
    *,
    sample: int = SAMPLE,
    set_aside: bool = False,
) -> Plan:
    """Measure what migrating a store takes, and whether it is needed; changes nothing.

    Raises:
        StoreError: it is not a store, or has rows that cannot be embedded, such as vectors without
            a text that must not be set aside; or its vectors were made with more than its texts.
        DiskFullError: there is not enough disk space.
    """
    store = ref.store
    require_own_vectors(ref, state)
    shape = store.inspect()
    rows = sampled(checked(store, shape), shape.rows, sample)
    if store.settings:  # fail now, not after the swap, if the file cannot be changed
        settings_of(store, model=target.model, dimensions=target.dimensions)
    lacking = lasting_lack(store)
    tried = _try_out([row for row in rows if row.text], shape, target, embedder)
    place = Workplace(store, state)
    place.require_ours()
    made = Plan(
        shape=shape,
        lacking=lacking,
        copies=_movable_copies(store),
        target=target,
        there=_there(store, target, shape, lacking, tried),
        cost=store.cost(target.dimensions),
        staged=staged_rows(place, ref, target),
        rows_per_s=tried.rows_per_s,
        chunk=recorded_chunking(ref, state),
        sampled=tried.rows,
        truncated=tried.truncated,
        caveats=caveats_of(store),
    )
    if made.there is None and target.dtype != shape.dtype and target.dtype != "float":
        made = replace(made, loss=measure_loss(store, shape, target, embedder))
    if made.there is None:
        place.require_room(made.disk_bytes)
        with store.replacing() as replacement:  # fail now if it is locked or read-only
            if lacking.text:
                require_set_aside(store, replacement, lacking.text, allowed=set_aside)
    return made


@dataclass(frozen=True, slots=True)
class _Trial:
    """What embedding a sample showed: how many rows got the vector that they have, or were cut."""

    rows: int
    same: int
    rows_per_s: float
    truncated: int = 0


def _try_out(rows: Sequence[Row], shape: Shape, target: Target, embedder: Embedder) -> _Trial:
    if not rows:
        return _Trial(0, 0, float("inf"))
    texts = [row.text or "" for row in rows]
    embed(
        embedder, texts[:1], target
    )  # loads the model, so that loading does not count in the rate
    began_s = time.perf_counter()
    embedded = embed_at_once(embedder, texts, target)
    rate = len(rows) / (time.perf_counter() - began_s)
    same, dtype = 0, target.dtype
    if _has_size_of(shape, target):
        alike = likeness(vectors_of(rows, dtype), embedded.vectors, dtype)
        same = int((alike >= SAME[dtype]).sum())
    return _Trial(len(rows), same, rate, embedded.truncated)


def _there(
    store: Store, target: Target, shape: Shape, lacking: Lacking, tried: _Trial
) -> str | None:
    """Say why a store is already in the target's space; None if it is not."""
    if not _has_size_of(shape, target) or tried.same < tried.rows:
        return None
    stamp = store.stamp()
    if stamp and compare(stamp.space, target.space).is_same:
        return f"its stamp says so, and so do {tried.rows} rows that were embedded again"
    # A stamp of another space is only overruled by all rows: a sample may lack the long ones.
    if tried.rows and not lacking.text and (stamp is None or tried.rows == shape.rows):
        return f"{tried.rows} of {shape.rows} rows were embedded again and are the same"
    return None


def _has_size_of(shape: Shape, target: Target) -> bool:
    """Whether vectors of the two can be compared at all."""
    return (shape.dimensions, shape.dtype) == (target.dimensions, target.dtype)


def checked(store: Store, shape: Shape) -> Iterator[Row]:
    """Yield all rows.

    Raises:
        StoreRowsError: a key has several texts, or the vectors differ in size.
    """
    previous: Key | None = None
    for row in store.rows():
        if previous == row.key:
            raise StoreRowsError(
                f"{address_of(store)}: several texts have the key {row.key!r}.",
                hint="A vector can have only one text; correct the `text` or `query` option.",
            )
        previous = row.key
        if len(row.vector) != shape.vector_bytes:
            found = len(row.vector) * shape.dimensions // shape.vector_bytes
            raise StoreRowsError(
                f"{address_of(store)}: row {row.key!r} has {found} dimensions, but others"
                f" have {shape.dimensions}.",
                hint="Delete or correct such rows first.",
            )
        yield row


def _movable_copies(store: Store) -> Sequence[Copy]:
    """Return the copies; raise `StoreRowsError` if one that should move holds something else."""
    found = copies_of(store)
    strange = next((copy for copy in found if copy.moves and not copy.same), None)
    if strange:
        raise StoreRowsError(
            f"{address_of(store)}: none of the {strange.rows} BLOBs in {strange.column} is a vector"
            " of the store with its key in the same row, so they cannot be matched to vectors.",
            hint="Leave the column out of the option `also`. If the store was migrated without that"
            " option before, undo that migration first.",
        )
    return found
