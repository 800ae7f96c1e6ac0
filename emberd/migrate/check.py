"""Which model made a store's vectors: by its stamp, or by embedding its texts again to compare."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from emberd.config.load import Config
from emberd.dtypes import Dtype, row_bytes
from emberd.errors import ConfigError, UnknownModelError
from emberd.migrate import sidecar
from emberd.migrate.candidates import Candidate, Candidates, Verdict
from emberd.migrate.chunked import chunking_of, recorded_chunking
from emberd.migrate.embedding import Embedder, Target
from emberd.migrate.health import Health, health_of, is_usable
from emberd.migrate.sampling import SAMPLE, sampled
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.worse import why_worse
from emberd.models.availability import find_here, require_here
from emberd.registry.spec import ModelSpec, Precision
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.compare import compare
from emberd.spaces.lock import LockFile, space_of
from emberd.spaces.stores import KnownStore, StoresFile, fingerprint_here
from emberd.stores.base import Copy, Key, Shape, Stamp, Store, address_of, caveats_of, copies_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What it takes to embed the store again with the default model."""

    model: str
    rows: int
    minutes: float
    megabytes: float
    locked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What a check found. `made_by` has the keys of the sampled rows by model; "" for no model.

    `precision` is that of the entry `model`, or None if there is no such entry. The cosines are
    None if nothing was embedded. `why` says how the stamp's space differs from the default's.

    `chunk` is how the rows were cut from longer texts, `chunk_of_new` how new ones are, as the
    entry states. The default cuts what has more than `max_tokens`: that is `truncated` of the
    sampled rows. Each is None if it is not known. `caveats` are promises of a run that the store's
    engine cannot keep.
    """

    store: str
    kind: str
    verdict: Verdict
    default: str
    model: str | None
    precision: Precision | None
    fingerprint: str | None
    judged_by: Literal["stamp", "sample"]
    dimensions: int
    rows: int
    sampled: int
    mean_cosine: float | None
    lowest_cosine: float | None
    health: Health
    copies: Sequence[Copy] = ()
    candidates: Sequence[Candidate] = ()
    made_by: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    work: Work | None = None
    why: str | None = None
    dtype: Dtype = "float"
    chunk: StoreChunking | None = None
    chunk_of_new: StoreChunking | None = None
    max_tokens: int | None = None
    truncated: int | None = None
    caveats: Sequence[str] = ()

    @property
    def why_worse(self) -> str:
        """An answer to "why did my search get worse?", in one paragraph."""
        return why_worse(self)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "why_worse": self.why_worse}


def whose(config: Config, ref: StoreRef) -> KnownStore | None:
    """Return whose vectors a store holds, as noted in the state folder, or else by its stamp.

    If nothing was noted about a configured store, or its path has changed, its stamp is noted.
    """
    noted = StoresFile(config.homes.state)
    found = noted.read().get(ref.name)
    if found and found.path == ref.address:
        return found
    stamp = ref.store.stamp()
    if stamp is None:
        return None
    serving = config.catalog.get(ref.served_by or config.settings.default).name
    entry = LockFile(config.homes.state).read().get(serving)
    fingerprint = fingerprint_here(stamp.space, serving, entry)
    chunk = chunking_of(ref, found, stamp)
    found = ref.holding(stamp.model, fingerprint, dtype=stamp.dtype, chunk=chunk)
    if ref.name in config.settings.stores:
        with suppress(OSError):  # the caller only wants to read
            noted.put(ref.name, found)
    return found


def check(
    config: Config,
    ref: StoreRef,
    embedder: Embedder,
    *,
    sample: int | None = None,
    models: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _what: None,
) -> StoreReport:
    """Find out whose vectors a store holds, and what it takes to move it to the default model.

    Args:
        config: the default, and the models.
        ref: the store.
        embedder: embeds the sample.
        sample: rows to embed, evenly spread; 0 for all. None: 200, or none if it is stamped.
        models: candidates, which must be on this machine; if empty, every model that is. A role
            that their names state is that of the store's texts.
        progress: called with what is being done, in words.

    Raises:
        StoreError: it cannot be read.
        BadOptionError: the names state another role than the store, or than each other.
        SourceError: a model in `models` is not on this machine, or no model is.
        EmberdError: the default cannot embed; another that cannot is a candidate with an error.
    """
    store = ref.store
    default = config.catalog.get(ref.served_by or config.settings.default)
    asked, role = [], ref.input_type
    for name in models:
        # a role is that of all texts of the store
        spec, role = config.catalog.find(name, role, kinds=("embed",))
        asked.append(spec)
    hub, entries = config.homes.hub, LockFile(config.homes.state).read()
    for spec in asked:
        require_here(spec, hub, entries.get(spec.name))
    progress("reading every row")
    shape = store.inspect()
    health = health_of(store, shape)
    stamp = store.stamp()
    common: dict[str, Any] = {
        "store": address_of(store), "kind": store.kind, "default": default.name,
        "dimensions": shape.dimensions, "dtype": shape.dtype, "rows": shape.rows, "health": health,
        "copies": copies_of(store), "chunk_of_new": ref.chunk, "caveats": caveats_of(store),
        "chunk": recorded_chunking(ref, config.homes.state) if shape.rows else ref.chunk,
    }  # fmt: skip
    if stamp and sample is None and not models:
        return _by_stamp(config, stamp, default, common)
    rows = sampled(store.rows(), shape.rows, shape.rows if sample == 0 else sample or SAMPLE)
    rows = [row for row in rows if row.text and is_usable(row.vector, shape)]
    specs = {
        spec.name: spec
        for spec in (*(asked or (each for each in config.catalog if each.kind == "embed")), default)
        if find_here(spec, hub, entries.get(spec.name))
    }
    if rows and not specs:
        require_here(default, hub, entries.get(default.name))
    candidates = Candidates(rows, shape.dimensions, role, shape.dtype)
    for spec in specs.values():
        progress(f"embedding {len(rows)} rows with {spec.name}")
        candidates.add(spec, embedder, keep=spec is default)
    work = _work(store, shape, default, candidates.rows_per_s.get(default.name))
    entry = LockFile(config.homes.state).read().get(default.name)  # it was loaded since
    common |= {"work": work, "max_tokens": entry.now.options.max_tokens if entry else None}
    return _by_sample(candidates, shape, default, len(rows), common)


def _by_stamp(
    config: Config, stamp: Stamp, default: ModelSpec, common: dict[str, Any]
) -> StoreReport:
    entry = LockFile(config.homes.state).read().get(default.name)
    here = space_of(default.name, entry, stamp.dtype, stamp.dimensions)
    comparison = compare(stamp.space, here)
    return StoreReport(
        verdict="compatible" if comparison.is_same else "re-embed",
        why=None if comparison.is_same else comparison.why, model=stamp.model,
        precision=_precision(config, stamp.model),
        fingerprint=fingerprint_here(stamp.space, default.name, entry),
        judged_by="stamp", sampled=0, mean_cosine=None, lowest_cosine=None,
        max_tokens=entry.now.options.max_tokens if entry else None, **common,
    )  # fmt: skip


def _by_sample(
    candidates: Candidates, shape: Shape, default: ModelSpec, rows: int, common: dict[str, Any]
) -> StoreReport:
    verdict, model = candidates.verdict(default.name)
    if not shape.rows:
        sizes = (default.dimensions, *default.matryoshka)
        verdict = "compatible" if shape.dimensions in sizes else "re-embed"
    best = candidates.candidate(model) if model else None
    return StoreReport(
        verdict=verdict, model=model, precision=best.precision if best else None,
        fingerprint=best.fingerprint if best else None, judged_by="sample", sampled=rows,
        mean_cosine=best.mean_cosine if best else None,
        lowest_cosine=best.lowest_cosine if best else None,
        candidates=sorted(candidates.found, key=lambda each: -each.mean_cosine),
        made_by=candidates.made_by(default.name),
        truncated=candidates.truncated.get(default.name),
        **common,
    )  # fmt: skip


def _precision(config: Config, model: str) -> Precision | None:
    """Return the precision of an entry; a stamp may name one that no longer exists."""
    with suppress(UnknownModelError):
        return config.catalog.get(model).precision
    return None


def note_report(config: Config, ref: StoreRef, report: StoreReport) -> None:
    """Note what a check found, if the server should know the store. Raises `ConfigError`."""
    before = StoresFile(config.homes.state).read().get(ref.name)
    found = known_from(report, ref)
    if found is None and report.rows and before and before.path == report.store:
        found = replace(before, chunk=report.chunk)  # nothing else is known better now
    is_known = ref.name in config.settings.stores or before
    if is_known and (found or not report.rows):  # an empty store holds nobody's vectors
        _put(config, ref.name, found)


def note_target(config: Config, ref: StoreRef, target: Target) -> None:
    """Note that a store is already in this space. Raises `ConfigError`."""
    chunk = recorded_chunking(ref, config.homes.state)
    found = ref.holding(target.model, target.fingerprint, dtype=target.dtype, chunk=chunk)
    _put(config, ref.name, found)


def _put(config: Config, name: str, found: KnownStore | None) -> None:
    try:
        StoresFile(config.homes.state).put(name, found)
    except OSError as error:
        raise ConfigError(
            f"The folder {config.homes.state} cannot be written: {error.strerror}.",
            hint="Correct its permissions.",
        ) from None


def known_from(report: StoreReport, ref: StoreRef) -> KnownStore | None:
    """Return what to note about a checked store; None if no model was recognised."""
    mixed = report.verdict == "mixed"
    if report.model is None and not mixed:
        return None
    model, fingerprint = (None, None) if mixed else (report.model, report.fingerprint)
    return ref.holding(model, fingerprint, dtype=report.dtype, chunk=report.chunk)


def _work(store: Store, shape: Shape, default: ModelSpec, rows_per_s: float | None) -> Work | None:
    if rows_per_s is None:
        return None
    cost = store.cost(default.dimensions)
    staged = sidecar.bytes_of(shape.rows, row_bytes(default.dimensions, shape.dtype))
    size = cost.backup_bytes + cost.swap_bytes + staged
    return Work(
        model=default.name,
        rows=shape.rows,
        minutes=round(shape.rows / rows_per_s / 60, 2),
        megabytes=round(size / 1e6, 1),
        locked_s=round(cost.locked_s, 2),
    )
