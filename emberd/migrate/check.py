"""Whose vectors a store holds: its stamp says so, or its texts are embedded again and compared."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from emberd.config.load import Config
from emberd.errors import ConfigError, EmberdError, UnknownModelError
from emberd.migrate import sidecar
from emberd.migrate.base import Copy, Key, Row, Shape, Store, copies_of
from emberd.migrate.embedding import (
    BATCH,
    Embedded,
    Embedder,
    Target,
    in_turn,
    is_here,
    require_here,
)
from emberd.migrate.health import Health, health_of, is_usable
from emberd.migrate.sampling import SAMPLE, cosines, sampled, unpack
from emberd.migrate.store_ref import StoreRef
from emberd.registry.spec import ModelSpec, Precision
from emberd.spaces.compare import SAME_SPACE, compare
from emberd.spaces.lock import LockFile, space_of
from emberd.spaces.stores import KnownStore, StoresFile, fingerprint_here
from emberd.vectors import Matrix

Verdict = Literal["compatible", "re-embed", "mixed", "unknown"]
A_FEW = 0.1  # share of rows that fit no model in a store that is still called one model's


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """How near a model comes to the sampled vectors. `share` is of rows at 0.999 or more."""

    model: str
    precision: Precision
    fingerprint: str | None
    mean_cosine: float
    lowest_cosine: float
    share: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What embedding the store again with the default takes."""

    model: str
    rows: int
    minutes: float
    megabytes: float
    locked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What a check found. `made_by` has the keys of the sampled rows by model; "": by none.

    `precision` is of the entry `model`; None where no entry is called so. The cosines are None
    where nothing was embedded. `why` says what tells the space of a stamp from the default's.
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

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def whose(config: Config, ref: StoreRef) -> KnownStore | None:
    """Return whose vectors a store holds by what is noted of it, as the server does, or its stamp.

    The stamp of a configured store is noted where nothing was, or that of another path.
    """
    noted = StoresFile(config.homes.state)
    found = noted.read().get(ref.name)
    if found and found.path == str(ref.store.path):
        return found
    stamp = ref.store.stamp()
    if stamp is None:
        return None
    serving = config.catalog.get(ref.served_by or config.settings.default).name
    entry = LockFile(config.homes.state).read().get(serving)
    found = ref.holding(stamp.model, fingerprint_here(stamp.space, serving, entry))
    if ref.name in config.settings.stores:
        with suppress(OSError):  # this only reads
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
    """Find out whose vectors a store holds, and what moving it to the default takes.

    Args:
        config: the default, and the models.
        ref: the store.
        embedder: embeds the sample.
        sample: rows to embed, evenly spread; 0 for all. None: 200, or none of a stamped store.
        models: candidates, which have to be here; without, every model that is.
        progress: called with what is being done, in words.

    Raises:
        StoreError: it cannot be read.
        SourceError: a model that was asked for, or every model, is not on this machine.
        EmberdError: the default cannot embed; others that cannot become candidates with an error.
    """
    store = ref.store
    default = config.catalog.get(ref.served_by or config.settings.default)
    asked = [config.catalog.get(name) for name in models]
    for spec in asked:
        require_here(config, spec)
    progress("reading every row")
    shape = store.inspect()
    health = health_of(store, shape)
    stamp = store.stamp()
    common: dict[str, Any] = {
        "store": str(store.path), "kind": store.kind, "default": default.name,
        "dimensions": shape.dimensions, "rows": shape.rows, "health": health,
        "copies": copies_of(store),
    }  # fmt: skip
    if stamp and sample is None and not models:
        entry = LockFile(config.homes.state).read().get(default.name)
        comparison = compare(stamp.space, space_of(default.name, entry))
        return StoreReport(
            verdict="compatible" if comparison.is_same else "re-embed",
            why=None if comparison.is_same else comparison.why, model=stamp.model,
            precision=_precision(config, stamp.model),
            fingerprint=fingerprint_here(stamp.space, default.name, entry),
            judged_by="stamp", sampled=0, mean_cosine=None, lowest_cosine=None, **common,
        )  # fmt: skip
    rows = sampled(store, shape.rows, shape.rows if sample == 0 else sample or SAMPLE)
    rows = [row for row in rows if row.text and is_usable(row.vector, shape.dimensions)]
    specs = {spec.name: spec for spec in asked or config.catalog if is_here(config, spec)}
    if is_here(config, default):
        specs[default.name] = default
    if rows and not specs:
        require_here(config, default)
    compared = _Compared(rows, shape.dimensions, ref)
    for spec in specs.values():
        progress(f"embedding {len(rows)} rows with {spec.name}")
        compared.add(spec, embedder, keep=spec is default)
    verdict, model = compared.verdict(default.name)
    if not shape.rows:
        sizes = (default.dimensions, *default.matryoshka)
        verdict = "compatible" if shape.dimensions in sizes else "re-embed"
    best = compared.candidate(model) if model else None
    return StoreReport(
        verdict=verdict, model=model, precision=best.precision if best else None,
        fingerprint=best.fingerprint if best else None, judged_by="sample", sampled=len(rows),
        mean_cosine=best.mean_cosine if best else None,
        lowest_cosine=best.lowest_cosine if best else None,
        candidates=sorted(compared.candidates, key=lambda each: -each.mean_cosine),
        made_by=compared.made_by(default.name),
        work=_work(store, shape, default, compared.rows_per_s.get(default.name)),
        **common,
    )  # fmt: skip


def _precision(config: Config, model: str) -> Precision | None:
    """Return that of the entry; a stamp may name one that no longer exists."""
    with suppress(UnknownModelError):
        return config.catalog.get(model).precision
    return None


def note_report(config: Config, ref: StoreRef, report: StoreReport) -> None:
    """Note what a check found of a store that the server should know. Raises `ConfigError`."""
    known = StoresFile(config.homes.state)
    found = known_from(report, ref)
    is_known = ref.name in config.settings.stores or ref.name in known.read()
    if is_known and (found or not report.rows):  # an empty store holds nobody's vectors
        _put(config, ref.name, found)


def note_target(config: Config, ref: StoreRef, target: Target) -> None:
    """Note that a store is in this space already. Raises `ConfigError`."""
    _put(config, ref.name, ref.holding(target.model, target.fingerprint))


def _put(config: Config, name: str, found: KnownStore | None) -> None:
    try:
        StoresFile(config.homes.state).put(name, found)
    except OSError as error:
        raise ConfigError(
            f"The folder {config.homes.state} cannot be written: {error.strerror}."
        ) from None


def known_from(report: StoreReport, ref: StoreRef) -> KnownStore | None:
    """Return what is worth noting of a checked store: nothing where no model was recognised."""
    mixed = report.verdict == "mixed"
    if report.model is None and not mixed:
        return None
    return ref.holding(None if mixed else report.model, report.fingerprint)


class _Compared:
    """The cosines of each sampled row to each candidate."""

    def __init__(self, rows: Sequence[Row], dimensions: int, ref: StoreRef) -> None:
        self._rows = rows
        self._texts = [row.text or "" for row in rows]
        self._vectors = unpack(rows) if rows else np.zeros((0, dimensions), np.float32)
        self._dimensions = dimensions
        self._ref = ref
        self._cosines: dict[str, Matrix] = {}
        self.candidates: list[Candidate] = []
        self.rows_per_s: dict[str, float] = {}

    def add(self, spec: ModelSpec, embedder: Embedder, *, keep: bool) -> None:
        """Embed the sample with one more model; unload it again unless it is to be kept."""
        fits_size = self._dimensions in (spec.dimensions, *spec.matryoshka)
        if not self._texts or not (fits_size or keep):
            return
        try:
            embedded = self._embed(spec, embedder, self._dimensions if fits_size else None)
        except EmberdError as error:
            if keep:
                raise  # without the default there is nothing to judge by
            self.candidates.append(
                Candidate(
                    model=spec.name, precision=spec.precision, fingerprint=None, mean_cosine=0.0,
                    lowest_cosine=0.0, share=0.0, error=error.message,
                )
            )  # fmt: skip
            return
        finally:
            if not keep:
                embedder.release(spec.name)
        if not fits_size:
            return  # it was only timed
        vectors, fingerprint = embedded
        found = cosines(self._vectors, vectors)
        self._cosines[spec.name] = found
        self.candidates.append(
            Candidate(
                model=spec.name, precision=spec.precision, fingerprint=fingerprint,
                mean_cosine=round(float(found.mean()), 6),
                lowest_cosine=round(float(found.min()), 6),
                share=round(float((found >= SAME_SPACE).mean()), 4),
            )
        )  # fmt: skip

    def _embed(
        self, spec: ModelSpec, embedder: Embedder, dimensions: int | None
    ) -> tuple[Matrix, str]:
        def submit(batch: Sequence[str], space: str | None) -> "Future[Embedded]":
            return embedder.submit(
                batch, model=spec.name, dimensions=dimensions, input_type=self._ref.input_type,
                fingerprint=space,
            )  # fmt: skip

        # The time of loading is not part of the rate; all vectors are of the space that it gives.
        space = submit(self._texts[:1], None).result().fingerprint
        began_s = time.perf_counter()
        batches = (self._texts[at : at + BATCH] for at in range(0, len(self._texts), BATCH))
        answers = [answer for _, answer in in_turn(batches, lambda batch: submit(batch, space))]
        self.rows_per_s[spec.name] = len(self._texts) / (time.perf_counter() - began_s)
        return np.concatenate([each.vectors for each in answers]), space

    def candidate(self, name: str) -> Candidate:
        """Return one."""
        return next(each for each in self.candidates if each.model == name)

    def made_by(self, default: str) -> dict[str, list[Key]]:
        """Tell the rows apart: each belongs to a model that gives its vector again.

        A row may fit several models that are nearly one space: the one with the highest share and
        mean takes all rows that fit it before the next is asked.
        """
        order = sorted(
            (each for each in self.candidates if each.model in self._cosines),
            key=lambda each: (each.share, each.mean_cosine, each.model == default),
            reverse=True,
        )
        found: dict[str, list[Key]] = {}
        left = np.ones(len(self._rows), bool)
        for each in order:
            mine = left & (self._cosines[each.model] >= SAME_SPACE)
            if mine.any():
                found[each.model] = [self._rows[at].key for at in np.flatnonzero(mine).tolist()]
            left &= ~mine
        if left.any():
            found[""] = [self._rows[at].key for at in np.flatnonzero(left).tolist()]
        return found

    def verdict(self, default: str) -> tuple[Verdict, str | None]:
        """Return what to think of the store, and the model that made its vectors (most of them)."""
        made_by = self.made_by(default)
        unmatched = len(made_by.pop("", ()))
        if not made_by:
            return "unknown", None
        model = max(made_by, key=lambda name: len(made_by[name]))
        share = {each.model: each.share for each in self.candidates}
        if share.get(default) == 1.0 or (list(made_by) == [default] and self._few(unmatched)):
            return "compatible", model
        if len(made_by) > 1 or not self._few(unmatched):
            return "mixed", model
        return "re-embed", model

    def _few(self, unmatched: int) -> bool:
        return unmatched <= A_FEW * len(self._rows)


def _work(store: Store, shape: Shape, default: ModelSpec, rows_per_s: float | None) -> Work | None:
    if rows_per_s is None:
        return None
    cost = store.cost(default.dimensions)
    staged = sidecar.bytes_of(shape.rows, default.dimensions)
    size = cost.backup_bytes + cost.swap_bytes + staged
    return Work(
        model=default.name,
        rows=shape.rows,
        minutes=round(shape.rows / rows_per_s / 60, 2),
        megabytes=round(size / 1e6, 1),
        locked_s=round(cost.locked_s, 2),
    )
