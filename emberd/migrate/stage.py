"""Staging: embeds every row into the sidecar beside the store; the store itself is only read."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from emberd.migrate.chunked import recorded_chunking
from emberd.migrate.embedding import BATCH, Embedder, Target, submit_to
from emberd.migrate.notes import JointRun
from emberd.migrate.recovery import recover_locked
from emberd.migrate.sidecar import Sidecar
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.textless import Textless, lasting_lack
from emberd.migrate.turns import in_turn
from emberd.migrate.workplace import Workplace
from emberd.spaces.chunks import StoreChunking
from emberd.stores.base import Copy, Key, Row, copies_of
from emberd.stores.passes import watched

CHUNK = 4096  # rows read at a time, so that no read transaction lasts as long as the embedding
FEW = 256  # rows that may be embedded while the store is locked
PASSES = 20  # over a store that others keep writing to, before it is locked anyway

ProgressCallback = Callable[[int, int], None]
"""Called with the rows that are done and all rows."""


@dataclass(slots=True, kw_only=True)
class Staged:
    """A store with its new vectors beside it, locked against other migrations.

    At the swap, what is in the sidecar are the new vectors. `chunk` is how the rows were cut. This
    run embedded `embedded` rows in `embed_s`; writers waited for `locked_s`, or could not be locked
    out, and `late` rows were written to the old vectors' place during the swap. Building indexes
    took `index_s` of that, as far as the kind says so.
    """

    ref: StoreRef
    target: Target
    place: Workplace
    sidecar: Sidecar
    embedder: Embedder
    batch: int
    migration: str
    textless: Textless
    chunk: StoreChunking | None = None
    joint: JointRun | None = None
    copies: Sequence[Copy] = ()
    late: int = 0
    embedded: int = 0
    embed_s: float = 0.0
    locked_s: float = 0.0
    index_s: float = 0.0


@contextmanager
def staging(
    ref: StoreRef,
    target: Target,
    embedder: Embedder,
    state: Path,
    *,
    batch: int = BATCH,
    set_aside: bool = False,
    progress: ProgressCallback = lambda _done, _total: None,
) -> Iterator[Staged]:
    """Embed every row into the sidecar, starting where a stopped run ended; locks others out.

    Raises:
        StoreError: as in `plan`, or because another migration of this store is under way.
        EmberdError: the model cannot embed.
    """
    place = Workplace(ref.store, state)
    with place.locked():
        recover_locked(place)
        with Sidecar(place.staged) as kept:
            if not _is_of(kept, ref, target):
                kept.begin({**_about(ref, target), "migration": uuid.uuid4().hex})
            staged = Staged(
                ref=ref, target=target, place=place, sidecar=kept, embedder=embedder, batch=batch,
                migration=kept.about["migration"], textless=Textless(allowed=set_aside),
                chunk=recorded_chunking(ref, state),
            )  # fmt: skip
            with watched(ref.store) as is_written_to:
                shape = ref.store.inspect()
                _catch_up(staged, shape.rows, progress)
                if shape.without_text or is_written_to():
                    staged.textless.before = set(lasting_lack(ref.store).text)
            staged.copies = copies_of(ref.store)
            yield staged


def _catch_up(staged: Staged, total: int, progress: ProgressCallback) -> None:
    """Pass over the store until a pass finds no more than a few new or changed rows."""
    store, sidecar = staged.ref.store, staged.sidecar
    for _ in range(PASSES):
        done = found = 0
        progress(0, total)

        def lacking() -> Iterator[Row]:
            """Read on while the model is at work on what was yielded before."""
            nonlocal done
            after: Key | None = None
            while chunk := list(islice(store.rows(after=after, vectors=False), CHUNK)):
                after = chunk[-1].key
                wanted = sidecar.lacking([row for row in chunk if row.text])
                done += len(chunk) - len(wanted)
                progress(done, total)
                yield from wanted

        with watched(store) as is_written_to:
            for count in embed_rows(staged, lacking()):
                done += count
                found += count
                progress(done, total)
            if found <= FEW or not is_written_to():
                return


def embed_rows(staged: Staged, rows: Iterable[Row]) -> Iterator[int]:
    """Embed rows into the sidecar; yields how many, batch by batch."""
    began_s, rest = time.perf_counter(), iter(rows)
    answers = in_turn(
        iter(lambda: list(islice(rest, staged.batch)), []),
        lambda batch: submit_to(staged.embedder, [row.text or "" for row in batch], staged.target),
        lambda: staged.embedder.at_once,
    )
    for batch, embedded in answers:
        staged.sidecar.put(batch, embedded.vectors)
        staged.embedded += len(batch)
        yield len(batch)
    staged.embed_s += time.perf_counter() - began_s


def staged_rows(place: Workplace, ref: StoreRef, target: Target) -> int:
    """Return how many rows a stopped run to this target has embedded."""
    if not place.staged.exists():
        return 0
    with Sidecar(place.staged) as kept:
        return len(kept) if _is_of(kept, ref, target) else 0


def _is_of(kept: Sidecar, ref: StoreRef, target: Target) -> bool:
    about = _about(ref, target)
    return {key: kept.about.get(key) for key in about} == about


def _about(ref: StoreRef, target: Target) -> dict[str, str]:
    return {
        "kind": ref.store.kind,
        "options": json.dumps(dict(ref.options), sort_keys=True),
        "model": target.model,
        "fingerprint": target.fingerprint,
        "dimensions": str(target.dimensions),
        "input_type": target.input_type or "",
    }
