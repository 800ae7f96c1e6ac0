"""What is known about a store: its stamp, a run that can be continued, its backups."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emberd.errors import StoreBusyError
from emberd.migrate.recovery import recover
from emberd.migrate.sidecar import Sidecar
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import Workplace


def status(ref: StoreRef, state: Path) -> dict[str, Any]:
    """Return what is known about a store, for JSON; first finishes what a stopped run left."""
    place = Workplace(ref.store, state)
    recovered, under_way = None, False
    try:
        recovered = recover(ref, state)
    except StoreBusyError:
        under_way = True
    shape, stamp = ref.store.inspect(), ref.store.stamp()
    staged = None
    if place.staged.exists():
        with Sidecar(place.staged) as kept:
            staged = {**kept.about, "rows": len(kept)} if kept.about else None
    return {
        "store": ref.name,
        "path": ref.address,
        "kind": ref.store.kind,
        "rows": shape.rows,
        "dimensions": shape.dimensions,
        "dtype": shape.dtype,
        "stamp": asdict(stamp) if stamp else None,
        "recovered": recovered,
        "under_way": under_way,
        "staged": staged,
        "backups": [
            {
                "path": str(backup.path),
                "model": backup.note.model,
                "at": backup.note.at,
                "bytes": backup.path.stat().st_size,
            }
            for backup in place.backups()
        ],
        "unreadable": [str(path) for path in place.unreadable()],
        "copies": [str(copy) for copy in place.copies()],
    }
