"""From a Start frame to a model that can embed: files, hashes, tokenizer and backend.

Runs once, in the worker. The tokenizer is read in a thread of its own while the backend loads, from
when that no longer needs Python: a large vocabulary takes half a second, in which nobody else does.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from emberd import __version__, freed
from emberd.backends import plugins
from emberd.backends.base import Backend, Encoder, LoadRequest
from emberd.backends.faster import faster_compute
from emberd.errors import ModelLoadError, SourceError
from emberd.files import delete_tree, is_file
from emberd.folder.differences import differences
from emberd.folder.reading import Folder
from emberd.folder.space import BackendFiles, identify
from emberd.models import sources
from emberd.models.compiled import compiled_key
from emberd.models.files import hash_files
from emberd.models.splade import read_splade
from emberd.processor import processor_key
from emberd.registry.difference import Difference
from emberd.registry.spec import ModelSpec
from emberd.spaces.judge import judge
from emberd.spaces.lock import NO_VERSION, LockEntry
from emberd.worker.probes import probes_of
from emberd.worker.tokenizer import Tokenizer
from emberd.worker.wire import Progress, Ready, Start

if TYPE_CHECKING:
    from emberd.models.hub import OnProgress
    from emberd.worker.query_table import QueryTable


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this machine. `says` is what the folder says about the model."""

    backend: Backend
    entry: LockEntry
    says: Folder
    downloaded: bool

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.says.path

    @property
    def max_tokens(self) -> int:
        """The number of tokens at which texts are cut; known once `find` has returned."""
        return self.entry.options.max_tokens or 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to embed, and the Ready frame that describes it to the server.

    `workers` is how many of the model share this machine's cores. `queries` is where queries are
    looked up, if they do not go through the encoder. `is_static`: a text costs a mean of rows, less
    than it would to find its vector on disk.
    """

    spec: ModelSpec
    tokenizer: Tokenizer
    encoder: Encoder
    ready: Ready
    workers: int = 1
    queries: "QueryTable | None" = None
    is_static: bool = False

    @property
    def is_sparse(self) -> bool:
        """Whether its vectors are nearly all zero, and are given without their zeros."""
        return self.spec.kind == "sparse"

    @property
    def takes_pairs(self) -> bool:
        """Whether a text comes with a query, as a re-ranker wants it."""
        return self.spec.kind == "rerank"


class Phases:
    """Seconds spent in each part of the start: spawn, import, files, load, identity.

    Args:
        spawned_s: when the server spawned this process, on the monotonic clock.
        began_s: when the interpreter reached the first line of our code.
    """

    def __init__(self, spawned_s: float, began_s: float) -> None:
        self.seconds: dict[str, float] = {
            "spawn": round(began_s - spawned_s, 4),
            "import": round(time.monotonic() - began_s, 4),
        }

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        began_s = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began_s, 4)


def find(spec: ModelSpec, hub: Path, lock: LockEntry | None, report: "OnProgress") -> ModelFiles:
    """Find or download the files of a model and hash them; `lock` is what was known before.

    Raises:
        SourceError: the files are not here and cannot be downloaded.
        BackendError: the backend is missing or broken, or the registry and the checkpoint
            contradict each other.
    """
    backend_name = plugins.resolve(spec.backend)
    backend = plugins.load(backend_name)
    if spec.kind not in plugins.kinds(backend):
        raise ModelLoadError(
            f"{spec.name} is of kind {spec.kind}, which backend {backend_name} does not run.",
            hint="Choose another `backend` for it.",
        )
    copy = sources.locate(spec, hub=hub, files=backend.files, before=lock, report=report)
    entry, says = identify(spec, copy, BackendFiles(backend_name, backend.files), lock)
    return ModelFiles(backend, entry, says, copy.downloaded)


def load(start: Start, phases: Phases, report: Callable[[Progress], None]) -> Loaded:
    """Load the model that `start` describes; `report` is called with the progress.

    Raises:
        SourceError, BackendError: as `find`; the backend cannot use the files, or they changed.
    """
    spec = ModelSpec.from_dict(start.spec)
    before = LockEntry.from_dict(start.lock) if start.lock else None
    with phases.measure("files"):
        report(Progress(phase="files"))
        found = find(
            spec,
            Path(start.hub),
            before,
            lambda done, total: report(Progress(phase="download", done=done, total=total)),
        )
    key = compiled_key(spec, found.entry.files)
    report(Progress(phase="load"))
    python_is_free = Event()

    def read() -> Tokenizer:
        python_is_free.wait()
        tokenizer = Tokenizer(
            found.folder,
            found.max_tokens,
            found.says.normalizer,
            include_prompt=found.entry.options.include_prompt is not False,
            only_known=found.says.only_known,
            pairs=spec.kind == "rerank",
        )
        freed.give_back()  # of a large vocabulary, reading takes twice what is kept
        return tokenizer

    with phases.measure("load"), ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read)
        request = LoadRequest(
            folder=found.folder,
            kind=spec.kind,
            pooling=spec.pooling,
            precision=spec.precision,
            compute=spec.compute,
            cache=_cache(Path(start.cache, found.entry.backend or ""), key),
            cache_key=key,
            threads=start.threads,
            streams=spec.replicas if isinstance(spec.replicas, int) else 0,
            device=start.device,
            python_is_free=python_is_free.set,
        )
        try:
            encoder = found.backend.load(request)
        finally:
            python_is_free.set()
        tokenizer = reading.result()
        _refuse_changed(found, request.cache)
    devices = list(getattr(encoder, "devices", ()))
    workers = max(start.workers, spec.workers(len(devices)))
    if workers > 1 or start.threads:  # before the tokenizer has its first batch
        from emberd.config.environment import share_cores  # which one alone need not import

        share_cores(workers, threads=start.threads)
    if encoder.dimensions != spec.dimensions:
        raise ModelLoadError(
            f"{spec.name} gives vectors of {encoder.dimensions} dimensions, but the registry says"
            f" {spec.dimensions}.",
            hint=f"Fix models.{spec.name}.dimensions, or its sources.",
        )
    if found.entry.options.include_prompt is False and any(spec.prompts.values()):
        _check_skips(encoder, found)
    kept = tuple(getattr(encoder, "kept", ()))
    entry = replace(
        found.entry,
        engine=_engine(found.backend),
        compute=encoder.compute,
        started_for=spec.load_key,
        processor=processor_key(),
        kept=kept,
        stored=all(is_file(request.cache / name) for name in kept),
    )
    with phases.measure("identity"):
        if not (before and entry.is_same_state(before.now)):  # checked before
            _check_vocabulary(tokenizer, found.says)
        remembered = judge(entry, before, lambda: probes_of(spec.kind, tokenizer, encoder))
    ready = Ready(
        backend=entry.backend or "",
        compute=encoder.compute,
        max_tokens=found.max_tokens,
        fingerprints=dict(entry.fingerprints),
        equivalent=[] if remembered.changed_to else list(remembered.equivalent),
        lock=asdict(remembered),
        differences=[asdict(each) for each in _worth_saying(spec, found.says)],
        phases_s=phases.seconds,
        devices=devices,
        streams=getattr(encoder, "streams", 1),
    )
    queries, is_static = _queries(found, spec), found.says.only_known
    return Loaded(spec, tokenizer, encoder, ready, workers, queries, is_static)


def _queries(found: ModelFiles, spec: ModelSpec) -> "QueryTable | None":
    """Return where the queries of a sparse model are looked up, if they are."""
    file = read_splade(found.folder).queries if spec.kind == "sparse" else None
    if file is None:
        return None
    from emberd.worker.query_table import QueryTable  # which few models need

    return QueryTable(
        file,
        found.folder,
        entries=spec.dimensions,
        max_tokens=found.max_tokens,
        normalizer=found.says.normalizer,
    )


def _worth_saying(spec: ModelSpec, says: Folder) -> list[Difference]:
    faster = faster_compute(spec)
    return [*differences(says, spec), *([faster] if faster else [])]


def _refuse_changed(found: ModelFiles, cache: Path) -> None:
    """Raise SourceError if the files have changed since they were hashed.

    What was loaded and cached would otherwise get the fingerprint of other files.
    """
    before = found.entry.files
    now = hash_files(found.folder, found.backend.files, before)
    if [*now] == [*before] and all(now[name].sha256 == before[name].sha256 for name in now):
        return
    delete_tree(cache, ignore_errors=True)
    raise SourceError(
        f"The files in {found.folder} changed while they were being loaded.",
        hint="Try again when they have been written completely.",
    )


def _check_skips(encoder: Encoder, found: ModelFiles) -> None:
    """Raise ModelLoadError if prompts must not be pooled and the backend cannot do that."""
    if not getattr(encoder, "skips", False):
        raise ModelLoadError(
            f"The Pooling step in {found.folder} leaves prompts out (include_prompt is false);"
            f" backend {found.entry.backend} cannot do that.",
            hint="Choose another `backend`, or remove the entry's `prompts`.",
        )


def _check_vocabulary(tokenizer: Tokenizer, says: Folder) -> None:
    """Raise ModelLoadError if the tokenizer has tokens that the weights do not have."""
    highest = tokenizer.highest_id()
    if says.vocab_size is not None and highest >= says.vocab_size:
        raise ModelLoadError(
            f"{says.path / 'tokenizer.json'} has tokens up to id {highest}, but config.json there"
            f" says vocab_size {says.vocab_size}.",
            hint="The two belong to different models, or tokens were added without the weights:"
            " get tokenizer.json from where the weights came from.",
        )


def _cache(backend: Path, key: str) -> Path:
    """Return a model's folder below the backend's cache, writable only by this user."""
    with suppress(OSError):  # without a writable cache, nothing is cached
        backend.mkdir(0o700, parents=True, exist_ok=True)
    return backend / key


def _engine(backend: Backend) -> str:
    """Return the versions of emberd and of the libraries that this backend computes with."""
    versions = [("emberd", __version__), *((name, _version(name)) for name in backend.libraries)]
    return ", ".join(f"{name} {version}" for name, version in versions)


def _version(library: str) -> str:
    """Return a library's version, from its imported module or else from its metadata."""
    stated = getattr(sys.modules.get(library), "__version__", None)
    if stated:
        return str(stated)
    from importlib import metadata  # 35 ms, which a cold start need not spend

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return NO_VERSION
