"""How the rows of a store were cut from longer texts, and what that means for another model.

What was recorded says how the rows were cut; the store's entry, how its users cut new ones.
"""

from pathlib import Path

from emberd.errors import StoreError
from emberd.migrate.store_ref import StoreRef
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.stores import KnownStore, StoresFile
from emberd.stores.base import Stamp


def chunking_of(
    ref: StoreRef, noted: KnownStore | None, stamp: Stamp | None
) -> StoreChunking | None:
    """Return how a store's rows were cut; None if nobody said that they were.

    What was noted about the store counts as long as it has the stamp of then; otherwise its stamp
    was written by another machine since. Where nothing is recorded, the entry is believed.
    """
    if noted and noted.path != ref.address:
        noted = None
    is_of_now = noted and noted.migration == (stamp.migration if stamp else None)
    by_stamp = stamp.chunk if stamp else None
    by_note = noted.chunk if noted else None
    return (by_note if is_of_now else by_stamp or by_note) or ref.chunk


def recorded_chunking(ref: StoreRef, state: Path) -> StoreChunking | None:
    """Return `chunking_of` by what the state folder and the store say. Raises StoreError."""
    return chunking_of(ref, StoresFile(state).read().get(ref.name), ref.store.stamp())


def require_own_vectors(ref: StoreRef, state: Path) -> None:
    """Raise `StoreError` if the rows' vectors were made with more than the rows' texts."""
    recorded = recorded_chunking(ref, state)
    if any(chunk and chunk.late for chunk in (recorded, ref.chunk)):
        raise StoreError(
            f"The rows of {ref.name} were chunked late: each vector depends on the whole text"
            " around its chunk, and the store has only the chunks.",
            hint="Embed the documents themselves with the new model, into a new store, and have its"
            " users change to that.",
        )
