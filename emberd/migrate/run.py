"""Moving stores to another model: stage, swap, verify, undo. Several move together or none does.

`stage` never touches the store. `swapping` holds it locked with everything in place and not
committed, so whatever has to go with it can be done, or fail, first.
"""

import json
import shlex
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emberd.errors import (
    BackupError,
    EmberdError,
    MigrationError,
    NoServerError,
    StoreBusyError,
    StoreError,
    StoreRowsError,
    UnavailableError,
)
from emberd.migrate import sidecar
from emberd.migrate.base import (
    Copy,
    Cost,
    Key,
    Lacking,
    Replacement,
    Row,
    Shape,
    Stamp,
    Store,
    part_of,
)
from emberd.migrate.embedding import Embedded, Embedder, Target, in_turn
from emberd.migrate.sidecar import Sidecar
from emberd.migrate.workplace import (
    Backup,
    Member,
    Note,
    Together,
    Undone,
    Workplace,
    now,
    patiently,
    settings_of,
)
from emberd.registry.spec import InputType
from emberd.spaces.compare import SAME_SPACE, compare
from emberd.spaces.stores import KnownStore
from emberd.vectors import Matrix, finite_rows, normalize

BATCH = 256
CHUNK = 4096  # rows read at a time, so that no read transaction lasts as long as the embedding
FEW = 256  # rows that may be embedded while the store is locked
PASSES = 20  # over a store that others write to, before the lock is taken all the same
SAMPLE = 200
SEARCHES = 10
NAMED = 5  # keys or tables in a message
SEARCH_TRIES = 5
NEAREST = 10
HALVES_S = 3.0  # after a commit, for the texts of vectors that were there without one
LOOK_S = 0.05
LACKING_S = 1.0  # for which a vector has no text that is not on its way

Report = Callable[[int, int], None]
"""Called with the rows that are done and all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A store under the name by which people know it, and who asks for its vectors how.

    `options` are those that the store was made with; `kind` is None where it was recognised.
    `served_by` is the model that its users name, None when they take the server's default.
    """

    name: str
    store: Store
    kind: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    served_by: str | None = None
    input_type: InputType | None = None

    @property
    def is_path(self) -> bool:
        """Whether it is none of the configuration, which nobody but its path knows."""
        return Path(self.name).is_absolute()

    @property
    def argument(self) -> str:
        """What stands for it in a command, as a shell takes it: the name, or path and options."""
        if not self.is_path:
            return shlex.quote(self.name)
        kind = ["--kind", self.kind] if self.kind else []
        options = [word for pair in self.options.items() for word in ("-o", "=".join(pair))]
        return shlex.join([self.name, *kind, *options])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What moving a store will take. `there` says why nothing has to be done, else None."""

    shape: Shape
    lacking: Lacking
    copies: Sequence[Copy]
    target: Target
    there: str | None
    cost: Cost
    staged: int
    rows_per_s: float

    @property
    def disk_bytes(self) -> int:
        """Disk that is needed at the most, beside what is there."""
        staged = sidecar.bytes_of(self.shape.rows, self.target.dimensions)
        return self.cost.backup_bytes + self.cost.swap_bytes + staged

    @property
    def seconds(self) -> float:
        """Time that embedding what is not staged yet takes."""
        return (self.shape.rows - self.staged) / self.rows_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What came of one store.

    `copies` are the columns that held its vectors, too, as they were before; those that did not
    move along still hold the old ones. `set_aside` vectors have no text, and are `set_aside_in`
    what this says in words; `completed` ones had none at the swap and got it just after. `strays`
    are rows written since in another space, `gone` rows deleted since. Where nobody could embed any
    more, `unverified` says why, and `strays` are all rows written since. `lowest_cosine` is None
    when no row was embedded again, then or because there is none.
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
    set_aside: int = 0
    set_aside_in: str | None = None
    copies: Sequence[Copy] = ()


class FileEdit(Protocol):
    """A file that changes along with stores, before and after; None: there was none."""

    @property
    def file(self) -> Path: ...  # noqa: D102
    @property
    def before(self) -> bytes | None: ...  # noqa: D102
    @property
    def after(self) -> bytes: ...  # noqa: D102


class Along(Protocol):
    """What changes together with stores: the default, in the config file and in the server."""

    @property
    def edit(self) -> FileEdit:
        """What of it a process that died left in a file."""
        ...

    def commit(self) -> None:
        """Do it, or raise with nothing done."""
        ...

    def rollback(self) -> None:
        """Take it back; also allowed when it was not done."""
        ...


@dataclass(slots=True, kw_only=True)
class Staged:
    """A store whose new vectors lie beside it. `embedded` counts the rows of this run."""

    named: Named
    target: Target
    place: Workplace
    sidecar: Sidecar
    embedder: Embedder
    batch: int
    migration: str
    set_aside: bool = False
    together: Together | None = None
    embedded: int = 0
    embed_s: float = 0.0
    locked_s: float = 0.0
    keys: list[Key] = field(default_factory=list)
    lacking: set[Key] = field(default_factory=set)
    halves: int = 0
    completed: int = 0
    textless: list[Key] = field(default_factory=list)
    textless_in: str | None = None
    copies: Sequence[Copy] = ()


# -- before ---------------------------------------------------------------------------------


def plan(
    named: Named,
    target: Target,
    embedder: Embedder,
    state: Path,
    *,
    sample: int = SAMPLE,
    set_aside: bool = False,
) -> Plan:
    """Measure what moving a store takes, and whether it is there already; changes nothing.

    Raises:
        StoreError: it is no store, or has rows that cannot be embedded: vectors without a text that
            are not to be set aside, too.
        DiskFullError: there is not enough room.
    """
    store = named.store
    shape = store.inspect()
    check_rows(store, shape)
    if store.settings:  # a file that cannot be changed is met now, not after the swap
        settings_of(store, model=target.model, dimensions=target.dimensions)
    lacking = _lacking_for_long(store)
    rows = [row for row in sampled(store, shape.rows, sample) if row.text]
    texts = [row.text or "" for row in rows]
    rate, same = float("inf"), 0
    if rows:
        embed(embedder, texts[:1], target)  # what loading takes is no part of the rate
        began_s = time.perf_counter()
        vectors = embed(embedder, texts, target)
        rate = len(rows) / (time.perf_counter() - began_s)
        if shape.dimensions == target.dimensions:
            same = int((cosines(unpack(rows), vectors) >= SAME_SPACE).sum())
    place = Workplace(store, state)
    place.require_ours()
    made = Plan(
        shape=shape,
        lacking=lacking,
        copies=_known_copies(store),
        target=target,
        there=_there(store, target, shape, lacking, same, len(rows)),
        cost=store.cost(target.dimensions),
        staged=_staged_rows(place, named, target),
        rows_per_s=rate,
    )
    if made.there is None:
        place.require_room(made.disk_bytes)
        with store.replacing() as replacement:  # locked or read-only: met now, not at the end
            if lacking.text:
                _require_aside(store, replacement, lacking.text, set_aside=set_aside)
    return made


def _there(
    store: Store, target: Target, shape: Shape, lacking: Lacking, same: int, sampled: int
) -> str | None:
    if shape.dimensions != target.dimensions or same < sampled:
        return None
    stamp = store.stamp()
    if stamp and compare(stamp.space, target.space).is_same:
        return f"its stamp says so, and so do {sampled} rows that were embedded again"
    # Against a stamp of another space only all rows count: the long ones may not be in a sample.
    if sampled and not lacking.text and (stamp is None or sampled == shape.rows):
        return f"{sampled} of {shape.rows} rows were embedded again and are the same"
    return None


def check_rows(store: Store, shape: Shape) -> None:
    """Raise `StoreRowsError` for several texts of one key, and vectors of several sizes."""
    previous: Key | None = None
    for row in store.rows():
        if previous == row.key:
            raise StoreRowsError(
                f"{store.path}: several texts have the key {row.key!r}.",
                hint="A vector has one text; correct the `text` or `query` option.",
            )
        previous = row.key
        if len(row.vector) != 4 * shape.dimensions:
            raise StoreRowsError(
                f"{store.path}: row {row.key!r} has {len(row.vector) // 4} dimensions and others"
                f" have {shape.dimensions}.",
                hint="Delete or correct such rows first.",
            )


def lacking_of(store: Store) -> Lacking:
    """Return the keys of vectors without a text, and of texts without a vector."""
    own: Callable[[], Lacking] | None = getattr(store, "lacking", None)
    if own:
        return own()
    return Lacking(text=[row.key for row in store.rows(vectors=False) if not row.text])


def copies_of(store: Store) -> Sequence[Copy]:
    """Return the columns of a store's file that hold its vectors, too, or BLOBs of that size."""
    own: Callable[[], Sequence[Copy]] | None = getattr(store, "copies", None)
    return own() if own else ()


def _known_copies(store: Store) -> Sequence[Copy]:
    """Return them; raise `StoreRowsError` for one that is to move along and holds others."""
    found = copies_of(store)
    strange = next((copy for copy in found if copy.moves and not copy.same), None)
    if strange:
        raise StoreRowsError(
            f"{store.path}: none of the {strange.rows} BLOBs in {strange.column} is a vector of the"
            " store with its key beside it, so it is not known which is which.",
            hint="Leave it out of the option `also`; if the store was migrated without it before,"
            " undo that first.",
        )
    return found


def _lacking_for_long(store: Store) -> Lacking:
    """Look for a second, if need be; return what lacks a text all the while.

    Somebody may write a vector and then its text: such a vector lacks nothing.
    """
    lacking, until_s = lacking_of(store), time.monotonic() + LACKING_S
    while lacking.text and time.monotonic() < until_s:
        time.sleep(2 * LOOK_S)
        now, before = lacking_of(store), set(lacking.text)
        lacking = replace(now, text=[key for key in now.text if key in before])
    return lacking


def _require_aside(
    store: Store, replacement: Replacement, keys: Sequence[Key], *, set_aside: bool
) -> None:
    """Raise `StoreRowsError` unless vectors without a text are to be set aside, and can be."""
    able = hasattr(replacement, "set_aside")
    if able and set_aside:
        return
    raise StoreRowsError(
        f"{store.path}: {len(keys)} vectors have no text, or one that is NULL or empty"
        f" ({listed(map(repr, keys))}), so no model can make them again.",
        hint="Give them a text, or delete them"
        + (
            "; or have `emberd migrate run` move them out of the store: --set-aside."
            if able
            else "."
        ),
    )


def listed(found: Iterable[object]) -> str:
    """Return the first few of many, for people."""
    first = [str(each) for each in islice(found, NAMED + 1)]
    return ", ".join([*first[:NAMED], "..."] if len(first) > NAMED else first)


def sampled(store: Store, rows: int, count: int) -> list[Row]:
    """Return `count` rows, evenly spread over the store; all of them when it has no more.

    The longest text is among them, in place of its neighbour: it tells where a model cuts.
    """
    wanted, found = _places(rows, count), dict[int, Row]()
    longest: tuple[int, Row] | None = None
    for place, row in enumerate(store.rows()):
        if place in wanted:
            found[place] = row
        if longest is None or len(row.text or "") > len(longest[1].text or ""):
            longest = place, row
    if longest and found and longest[0] not in found:
        at, row = longest
        del found[min(found, key=lambda place: abs(place - at))]
        found[at] = row
    return [found[place] for place in sorted(found)]


def _places(rows: int, count: int) -> set[int]:
    return set(np.linspace(0, rows - 1, min(count, rows)).astype(int).tolist()) if rows else set()


def unpack(rows: Sequence[Row]) -> Matrix:
    """Return the vectors of rows, `(N, D)`."""
    return np.stack([np.frombuffer(row.vector, "<f4") for row in rows])


def cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each pair of rows, `(N,)`; 0 where one of them is no usable vector."""
    usable = finite_rows(a) & finite_rows(b)
    result = np.zeros(len(a), np.float32)
    result[usable] = (normalize(a[usable]) * normalize(b[usable])).sum(axis=1)
    return result


def embed(embedder: Embedder, texts: Sequence[str], target: Target) -> Matrix:
    """Embed texts in the target's space, `(N, D)`; raises when the model has left it."""
    batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    answers = in_turn(batches, lambda batch: _submit(embedder, batch, target))
    return np.concatenate([answer.vectors for _, answer in answers])


def _submit(embedder: Embedder, texts: Sequence[str], target: Target) -> "Future[Embedded]":
    return embedder.submit(
        texts,
        model=target.model,
        dimensions=target.dimensions,
        input_type=target.input_type,
        fingerprint=target.fingerprint,
    )


def _staged_rows(place: Workplace, named: Named, target: Target) -> int:
    if not place.staged.exists():
        return 0
    with Sidecar(place.staged) as kept:
        return len(kept) if _is_of(kept, named, target) else 0


def _is_of(kept: Sidecar, named: Named, target: Target) -> bool:
    about = _about(named, target)
    return {key: kept.about.get(key) for key in about} == about


def _about(named: Named, target: Target) -> dict[str, str]:
    return {
        "kind": named.store.kind,
        "options": json.dumps(dict(named.options), sort_keys=True),
        "model": target.model,
        "fingerprint": target.fingerprint,
        "dimensions": str(target.dimensions),
        "input_type": target.input_type or "",
    }


# -- staging --------------------------------------------------------------------------------


@contextmanager
def staging(
    named: Named,
    target: Target,
    embedder: Embedder,
    state: Path,
    *,
    batch: int = BATCH,
    set_aside: bool = False,
    report: Report = lambda _done, _total: None,
) -> Iterator[Staged]:
    """Embed every row into the sidecar, going on where a stopped run ended; keeps others out.

    Raises:
        StoreError: as `plan`; or another migration of this store is under way.
        EmberdError: the model cannot embed.
    """
    place = Workplace(named.store, state)
    with place.locked():
        place.recover()
        with Sidecar(place.staged) as kept:
            if not _is_of(kept, named, target):
                kept.begin({**_about(named, target), "migration": uuid.uuid4().hex})
            staged = Staged(
                named=named, target=target, place=place, sidecar=kept, embedder=embedder,
                batch=batch, migration=kept.about["migration"], set_aside=set_aside,
            )  # fmt: skip
            _catch_up(staged, report)
            staged.lacking = set(_lacking_for_long(named.store).text)
            staged.copies = copies_of(named.store)
            yield staged


def _catch_up(staged: Staged, report: Report) -> None:
    """Pass over the store until a pass finds no more than a few new or changed rows."""
    store = staged.named.store
    total = store.inspect().rows
    for _ in range(PASSES):
        done, found, after = 0, 0, None
        report(0, total)
        while chunk := list(islice(store.rows(after=after, vectors=False), CHUNK)):
            after = chunk[-1].key
            lacking = staged.sidecar.lacking(row for row in chunk if row.text)
            found += len(lacking)
            done += len(chunk) - len(lacking)
            report(done, total)
            for count in _embed_into(staged, lacking):
                done += count
                report(done, total)
        if found <= FEW:
            return


def _embed_into(staged: Staged, rows: Sequence[Row]) -> Iterator[int]:
    """Embed rows into the sidecar; yields how many, batch by batch."""
    began_s = time.perf_counter()
    batches = (rows[at : at + staged.batch] for at in range(0, len(rows), staged.batch))
    for batch, embedded in in_turn(batches, lambda batch: _ask(staged, batch)):
        staged.sidecar.put(batch, embedded.vectors)
        staged.embedded += len(batch)
        yield len(batch)
    staged.embed_s += time.perf_counter() - began_s


def _ask(staged: Staged, rows: Sequence[Row]) -> "Future[Embedded]":
    return _submit(staged.embedder, [row.text or "" for row in rows], staged.target)


# -- swapping -------------------------------------------------------------------------------


@contextmanager
def swapping(staged: Staged) -> Iterator[Callable[[], None]]:
    """Put the new vectors in place in one transaction; gives what commits it.

    Left without that call, or killed, the store is as it was; what was prepared waits for
    `Workplace.roll_back` or whoever comes next.
    """
    with patiently(staged.named.store.replacing) as replacement:
        began_s = time.perf_counter()
        _bring_up_to_date(staged, replacement)
        staged.place.prepare(_note(staged))
        if staged.textless:
            staged.textless_in = replacement.set_aside(staged.textless, stamp=_stamp(staged))
        with _nothing_else(staged.named.store, replacement):
            replacement.fill(
                ((key, staged.sidecar.vector(key)) for key in staged.keys),
                dimensions=staged.target.dimensions,
                stamp=_stamp(staged),
            )
        staged.place.filled(replacement.digest())

        def commit() -> None:
            replacement.commit()
            staged.locked_s = time.perf_counter() - began_s

        yield commit


@contextmanager
def _nothing_else(store: Store, replacement: Replacement) -> Iterator[None]:
    """Hold a locked store to it that only its vectors are changed here.

    Raises:
        MigrationError: a key, another column or another table is not what it was.
    """
    unmoved: Callable[[], Mapping[str, str]] = getattr(replacement, "unmoved", dict)
    before = unmoved()
    yield
    changed = sorted({name for name, _ in before.items() ^ unmoved().items()})
    if changed:
        raise MigrationError(
            f"{store.path} would have been changed in more than its vectors: {listed(changed)}."
            " It is as it was before.",
            hint="Report this, with the definition of its tables.",
        )


def _bring_up_to_date(staged: Staged, replacement: Replacement) -> None:
    """Embed what changed up to the lock, and note the keys there are."""
    lacking, staged.keys, staged.textless = [], [], []
    for row in replacement.rows():
        (staged.keys if row.text else staged.textless).append(row.key)
        if row.text and not staged.sidecar.has(row):
            lacking.append(row)
    alone: list[Key] = []
    if hasattr(replacement, "vector_keys"):
        known = {*staged.keys, *staged.textless}
        alone = [key for key in replacement.vector_keys() if key not in known]
        staged.textless += alone
    on_their_way = {key for key in alone if key not in staged.lacking}
    staged.halves = len(on_their_way)
    lasting = [key for key in staged.textless if key not in on_their_way]
    for keys, agreed in ((lasting, staged.set_aside), (alone, True)):
        if keys:
            _require_aside(staged.named.store, replacement, keys, set_aside=agreed)
    deque(_embed_into(staged, lacking), maxlen=0)


def _stamp(staged: Staged) -> Stamp:
    target = staged.target
    return Stamp(
        model=target.model, fingerprint=target.fingerprint, dimensions=target.dimensions,
        probes=target.probes, migration=staged.migration, made_at=now(), options=target.options,
    )  # fmt: skip


def _note(staged: Staged) -> Note:
    named, target = staged.named, staged.target
    settings = None
    if named.store.settings:
        settings, _ = settings_of(named.store, model=target.model, dimensions=target.dimensions)
    return Note(
        migration=staged.migration,
        at=now(),
        model=target.model,
        dimensions=target.dimensions,
        part=part_of(named.store),
        rows=len(staged.keys),
        digest="",  # not filled yet
        name=named.name,
        before=staged.place.known(named.name),
        after=known_store(named, target.model, target.fingerprint, migration=staged.migration),
        settings=settings,
        together=staged.together,
    )


def known_store(
    named: Named, model: str | None, fingerprint: str | None, *, migration: str | None = None
) -> KnownStore:
    """Return what to note of a store whose vectors were made so; `migration`: that of its stamp."""
    if migration is None and (stamp := named.store.stamp()):
        migration = stamp.migration
    return KnownStore(
        path=str(named.store.path), kind=named.store.kind, model=model, fingerprint=fingerprint,
        migration=migration,
    )  # fmt: skip


def migrate_all(
    stores: Sequence[Named],
    target: Target,
    embedder: Embedder,
    state: Path,
    *,
    along: Along | None = None,
    batch: int = BATCH,
    keep_backup: bool = True,
    set_aside: bool = False,
    report: Callable[[Named], Report] = lambda _named: lambda _done, _total: None,
) -> dict[str, Moved]:
    """Move stores to one model together with what goes `along`, or do none of it.

    All stores are staged first. Then all are locked and filled, `along` is committed (it makes the
    model the default and reloads), the stores are committed and verified. When any step fails, what
    was committed is undone; when the process dies, whoever comes next does that. From when all is
    committed an interrupt is as such a death: whoever comes next finishes it. `plan` each store
    before: it finds what would stop this halfway.

    Returns:
        What came of each, by name.

    Raises:
        EmberdError: whatever failed; everything is as it was.
    """
    require_apart(stores)
    with ExitStack() as stack:
        staged = [
            stack.enter_context(
                staging(
                    named,
                    replace(target, input_type=named.input_type),
                    embedder,
                    state,
                    batch=batch,
                    set_aside=set_aside,
                    report=report(named),
                )
            )
            for named in stores
        ]
        together = _together(stores, along)
        for one in staged:
            one.together = together
        going_along, is_committed = None, False
        try:
            with ExitStack() as locks:
                commits = [locks.enter_context(swapping(one)) for one in staged]
                if along:
                    going_along = along  # before it is done: an interrupt may come in between
                    try:
                        along.commit()
                    except EmberdError:
                        going_along = None  # it did nothing
                        raise
                for commit_store in commits:
                    commit_store()
                is_committed = True
            for one in staged:
                _await_halves(one)
            moved = {one.named.name: _verified(one) for one in staged}
            for one in staged:
                one.place.settle()
        except BaseException as error:
            # Others may write by now: taking it back would move their rows into a copy.
            if not (is_committed and isinstance(error, KeyboardInterrupt)):
                _take_back([one.place for one in staged], going_along, error)
            raise
        for one in staged:
            one.sidecar.close()
            one.place.finish()
            backup = one.place.backups()[-1]
            if keep_backup:
                moved[one.named.name] = replace(moved[one.named.name], backup=str(backup.path))
            else:
                one.place.forget(backup)
        return moved


def _await_halves(staged: Staged) -> None:
    """Complete rows of which the swap found the vector and not yet the text.

    Whoever writes the vector first and its text a moment later may be met in between; the text
    waits for the lock then. What does not come within `HALVES_S`, or cannot be embedded now, stays
    set aside, and is completed by the next run.
    """
    until_s = time.monotonic() + HALVES_S
    while staged.completed < staged.halves:
        last = time.monotonic() > until_s  # the store is looked at once more after it
        with suppress(UnavailableError, NoServerError, StoreBusyError):
            rows, vectors = _complete(staged.named.store, staged.target, staged.embedder)
            if rows:
                staged.sidecar.put(rows, vectors)
                staged.keys += [row.key for row in rows]
                staged.completed += len(rows)
        if last:
            return
        time.sleep(LOOK_S)


def complete(named: Named, target: Target, embedder: Embedder, state: Path) -> int:
    """Give vectors to rows whose text came after their vector was set aside; return how many.

    See `_await_halves`. Nothing is done in a store of another space than the target's.
    """
    stamp = named.store.stamp()
    if not stamp or not compare(stamp.space, target.space).is_same:
        return 0
    if not _halved(named.store):
        return 0
    with Workplace(named.store, state).locked():
        return len(_complete(named.store, target, embedder)[0])


def _halved(store: Store) -> list[Row]:
    return list(store.halved()) if hasattr(store, "halved") else []


def _complete(store: Store, target: Target, embedder: Embedder) -> tuple[list[Row], Matrix]:
    """Embed and add what is halved; return these rows, and their vectors `(N, D)`."""
    rows = _halved(store)
    if not rows:
        return rows, np.zeros((0, target.dimensions), np.float32)
    vectors = embed(embedder, [row.text or "" for row in rows], target)
    with patiently(store.replacing) as replacement:
        still = set(_halved(store))
        places = [place for place, row in enumerate(rows) if row in still]
        rows, vectors = [rows[place] for place in places], vectors[places]
        packed = (vector.astype("<f4").tobytes() for vector in vectors)
        replacement.complete(zip((row.key for row in rows), packed, strict=True))
        replacement.commit()
    return rows, vectors


def require_apart(stores: Sequence[Named]) -> None:
    """Raise `StoreError` when two of them lie in one file: only one of these can be locked."""
    seen: dict[Path, str] = {}
    for named in stores:
        other = seen.setdefault(named.store.path.resolve(), named.name)
        if other != named.name:
            raise StoreError(
                f"The stores {other} and {named.name} lie in one file, {named.store.path}, which is"
                " locked and backed up as a whole.",
                hint="Give each a file of its own, or migrate them one by one with"
                " `emberd migrate run STORE --to MODEL --no-keep-backup`, then `emberd use MODEL`.",
            )


def _together(stores: Sequence[Named], along: Along | None) -> Together:
    members = tuple(
        Member(path=str(one.store.path), kind=one.store.kind, options=dict(one.options))
        for one in stores
    )
    if along is None:
        return Together(run=uuid.uuid4().hex, stores=members)
    edit = along.edit
    before = None if edit.before is None else edit.before.decode()
    return Together(
        run=uuid.uuid4().hex, stores=members,
        file=str(edit.file), before=before, after=edit.after.decode(),
    )  # fmt: skip


def _take_back(places: Sequence[Workplace], along: Along | None, because: BaseException) -> None:
    """Undo as much as can be undone; raises when that was not all of it, or rows were copied.

    All are marked first: whoever comes after a kill in the middle goes on backwards.
    """
    failed, copies = [], []
    steps: list[Callable[[], Path | None]] = [place.mark for place in places]
    steps += [along.rollback] if along else []
    steps += [place.roll_back for place in places]
    for step in steps:
        try:
            copies.append(step())
        except (EmberdError, OSError) as error:
            failed.append(str(error))
    kept = ", ".join(str(copy) for copy in copies if copy)
    if kept and not failed:
        raise MigrationError(
            f"{str(because) or 'It was interrupted.'} What was written meanwhile is in {kept}.",
            hint="Correct the cause, and write those rows again.",
        ) from because
    if failed:
        raise MigrationError(
            f"{because} Taking it back failed, too: {' '.join(failed)}",
            hint="Correct that, and run `emberd migrate status` on each store: it finishes it.",
        ) from because


def _verified(staged: Staged) -> Moved:
    """Read a store that was just committed again and compare it with what the model gives.

    A model that cannot be asked any more says nothing against the store.

    Raises:
        MigrationError: it is not what it should be.
    """
    store, target = staged.named.store, staged.target
    shape = store.inspect()
    places, sample, ours = _places(shape.rows, SAMPLE), [], set(staged.keys)
    unlike = 0  # the same text with another vector
    for place, row in enumerate(store.rows()):
        if row.key not in ours or not staged.sidecar.holds(row):
            unlike += row.key in ours and staged.sidecar.has(row)
        elif place in places:
            sample.append(row)
    if unlike and not staged.completed and not staged.place.is_written_to():
        raise _wrong(store, f"{unlike} rows have other vectors than were put there")
    if shape.dimensions != target.dimensions:
        raise _wrong(store, f"it has {shape.dimensions} dimensions, not {target.dimensions}")
    lowest: float | None = None
    unverified = None
    try:
        if sample:
            again = embed(staged.embedder, [row.text or "" for row in sample], target)
            lowest = float(cosines(unpack(sample), again).min())
    except (UnavailableError, NoServerError) as error:
        unverified = error.message
    if lowest is not None and lowest < SAME_SPACE:
        raise _wrong(store, f"a row has a cosine of {lowest:.4f} to its text embedded again")
    _check_search(staged, sample[:: max(1, len(sample) // SEARCHES)])
    strays, gone = _written_since(staged)  # last, because others write all the while
    count = len(strays)
    if unverified is None:
        try:
            count = _count_strays(staged, strays)
        except (UnavailableError, NoServerError) as error:
            lowest, unverified = None, error.message
    return Moved(
        rows=len(staged.keys),
        embedded=staged.embedded,
        embed_s=round(staged.embed_s, 2),
        locked_s=round(staged.locked_s, 2),
        lowest_cosine=None if lowest is None else round(lowest, 6),
        backup=None,
        strays=count,
        gone=len(gone),
        unverified=unverified,
        completed=staged.completed,
        set_aside=len(staged.textless) - staged.completed,
        set_aside_in=staged.textless_in,
        copies=staged.copies,
    )


def _written_since(staged: Staged) -> tuple[list[Row], set[Key]]:
    """Return the rows that are not as they were put there, and the keys that are gone."""
    written, gone = [], set(staged.keys)  # others may write meanwhile: a count says nothing
    for row in staged.named.store.rows():
        if row.key not in gone or not staged.sidecar.holds(row):
            written.append(row)
        gone.discard(row.key)
    return written, gone


def _check_search(staged: Staged, sample: Sequence[Row]) -> None:
    """Search for rows by their own vectors; others may change what is searched all the while.

    Raises:
        MigrationError: a row that is there still is not found, and no other is as near.
    """
    store = staged.named.store
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
            if now.get(row.key) == row and not (first in now and _are_near(row, now[first].vector))
        ]
    if sample:
        key = sample[0].key
        raise _wrong(store, f"a search for the vector of row {key!r} does not find it")


def _is_found(staged: Staged, row: Row, first: Key | None) -> bool:
    """Whether `first` is the row, has the same vector, or was just written."""
    if first is None or first == row.key:
        return first is not None
    known = staged.sidecar.has_key(first)
    return not known or _are_near(row, staged.sidecar.vector(first))


def _are_near(row: Row, vector: bytes) -> bool:
    other = Row(row.key, None, vector)
    return float(cosines(unpack([row]), unpack([other]))[0]) >= SAME_SPACE


def _count_strays(staged: Staged, written: Sequence[Row]) -> int:
    """Count the rows that somebody wrote after the swap, still with another model's vectors."""
    rows = [row for row in written if row.text]
    if not rows:
        return 0
    comparable = [row for row in rows if len(row.vector) == 4 * staged.target.dimensions]
    strays = len(rows) - len(comparable)
    if comparable:
        texts = [row.text or "" for row in comparable]
        again = embed(staged.embedder, texts, staged.target)
        strays += int((cosines(unpack(comparable), again) < SAME_SPACE).sum())
    return strays


def _wrong(store: Store, what: str) -> MigrationError:
    return MigrationError(
        f"{store.path} was not right after the swap: {what}. It is as it was before.",
        hint="Run `emberd verify` on the model, and report this.",
    )


# -- afterwards -----------------------------------------------------------------------------


def recover(named: Named, state: Path) -> str | None:
    """Finish what a stopped run or undo left; return what was done, in words."""
    place = Workplace(named.store, state)
    if not place.folder.is_dir():
        return None
    with place.locked():
        return place.recover()


def undo(named: Named, state: Path, *, confirm: Callable[[Note, bool], None]) -> Undone:
    """Restore the newest backup and the settings that went with it.

    Args:
        named: the store.
        state: the state folder.
        confirm: called with the backup's note and whether the store was written to since; raises to
            stop.

    One that was stopped is ended, without asking again, and no other is begun.

    Raises:
        BackupError: the backup, or what is noted of it, is damaged; nothing was changed.
        StoreError: there is no backup, or the store is locked.
    """
    place = Workplace(named.store, state)
    if not place.folder.is_dir():
        raise _no_backup(named)
    with place.locked():
        backup = place.stopped_undo()
        if backup is None:
            place.recover()
            backup = _newest(named, place)
            confirm(backup.note, place.is_changed(backup.note))
        undone = place.undo(backup)
        place.note(named.name, backup.note.before)  # it may have another name by now
        return undone


def _newest(named: Named, place: Workplace) -> Backup:
    backups, unreadable = place.backups(), place.unreadable()
    if unreadable and not (backups and backups[-1].path > unreadable[-1]):
        newest = unreadable[-1]
        raise BackupError(
            f"{newest.with_suffix('.json')}, which says what the backup {newest} is, is damaged or"
            " gone. The store is as it was.",
            hint=f"To restore it by hand, end what uses the store: `sqlite3 {named.store.path}"
            f' ".restore {newest}"`. To undo the migration before it, move both files elsewhere.',
        )
    if not backups:
        raise _no_backup(named)
    return backups[-1]


def _no_backup(named: Named) -> StoreError:
    return StoreError(
        f"{named.store.path} has no backup of a migration.", hint="There is nothing to undo."
    )


def status(named: Named, state: Path) -> dict[str, Any]:
    """Return what is known of a store, for JSON; finishes what a stopped run left."""
    place = Workplace(named.store, state)
    recovered, under_way = None, False
    try:
        recovered = recover(named, state)
    except StoreBusyError:
        under_way = True
    shape, stamp = named.store.inspect(), named.store.stamp()
    staged = None
    if place.staged.exists():
        with Sidecar(place.staged) as kept:
            staged = {**kept.about, "rows": len(kept)} if kept.about else None
    return {
        "store": named.name,
        "path": str(named.store.path),
        "kind": named.store.kind,
        "rows": shape.rows,
        "dimensions": shape.dimensions,
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
