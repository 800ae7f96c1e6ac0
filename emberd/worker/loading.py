"""From a Start frame to a model that can embed: files, hashes, tokenizer and backend.

Runs in the child, once. The tokenizer is read in a thread of its own while the backend loads.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emberd import __version__
from emberd.backends import plugins
from emberd.backends.base import Backend, Encoder, LoadRequest
from emberd.errors import ModelLoadError
from emberd.registry import sources
from emberd.registry.compiled import compiled_key
from emberd.registry.fingerprint import fingerprint, hash_files
from emberd.registry.lock import LockEntry
from emberd.registry.spec import ModelSpec
from emberd.worker.identity import embed_probes, judge
from emberd.worker.tokenizer import Tokenizer, limit_of_checkpoint
from emberd.worker.wire import Progress, Ready, Start

if TYPE_CHECKING:
    from emberd.registry.hub import Report


@dataclass(frozen=True, slots=True)
class Found:
    """A model's files on this machine, and what they are."""

    backend: Backend
    entry: LockEntry
    max_tokens: int
    downloaded: bool

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self.entry.folder)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to embed, and what the server is told of it."""

    spec: ModelSpec
    tokenizer: Tokenizer
    encoder: Encoder
    ready: Ready


class Phases:
    """Seconds spent in each part of the start: spawn, import, files, load, identity.

    Args:
        spawned_s: when the server spawned this process, on the monotonic clock.
        began_s: when the interpreter ran its first line of ours.
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


def find(spec: ModelSpec, hub: Path, lock: LockEntry | None, report: "Report") -> Found:
    """Find or download the files of a model and hash them; `lock` is what was known before.

    Raises:
        SourceError: the files are not here and cannot be fetched.
        BackendError: the backend is missing or broken, or registry and checkpoint contradict.
    """
    backend_name = plugins.resolve(spec.backend)
    backend = plugins.load(backend_name)
    located = sources.locate(
        spec,
        hub=hub,
        files=backend.files,
        before=lock,
        report=report,
    )
    known = lock.now.files if lock and lock.now.folder == str(located.folder) else {}
    files = hash_files(located.folder, backend.files, known)
    max_tokens = _max_tokens(spec, located.folder)
    fingerprints = {
        str(size): fingerprint(spec, files=files, max_tokens=max_tokens, dimensions=size)
        for size in (spec.dimensions, *spec.matryoshka)
    }
    entry = LockEntry(
        source=str(located.source),
        folder=str(located.folder),
        files=files,
        fingerprint=fingerprints[str(spec.dimensions)],
        fingerprints=fingerprints,
        max_tokens=max_tokens,
        backend=backend_name,
    )
    return Found(backend, entry, max_tokens, located.downloaded)


def load(start: Start, phases: Phases, report: Callable[[Progress], None]) -> Loaded:
    """Load the model that `start` describes; `report` is told how far it is.

    Raises:
        SourceError, BackendError: as `find`; the backend cannot use the files.
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
    with phases.measure("load"), ThreadPoolExecutor(1) as thread:
        reading = thread.submit(Tokenizer, found.folder, found.max_tokens)
        encoder = found.backend.load(
            LoadRequest(
                folder=found.folder,
                pooling=spec.pooling,
                precision=spec.precision,
                compute=spec.compute,
                cache=_cache(Path(start.cache, found.entry.backend or ""), key),
                cache_key=key,
                threads=start.threads,
            )
        )
        tokenizer = reading.result()
    if encoder.dimensions != spec.dimensions:
        raise ModelLoadError(
            f"{spec.name} gives vectors of {encoder.dimensions} dimensions and the registry says"
            f" {spec.dimensions}.",
            hint=f"Correct models.{spec.name}.dimensions, or its sources.",
        )
    entry = replace(found.entry, engine=_engine(found.backend), compute=encoder.compute)
    with phases.measure("identity"):
        remembered = judge(entry, before, lambda: embed_probes(tokenizer, encoder))
    ready = Ready(
        backend=entry.backend or "",
        compute=encoder.compute,
        max_tokens=found.max_tokens,
        fingerprints=dict(entry.fingerprints),
        equivalent=[] if remembered.changed_to else list(remembered.equivalent),
        lock=asdict(remembered),
        phases_s=phases.seconds,
    )
    return Loaded(spec, tokenizer, encoder, ready)


def _cache(backend: Path, key: str) -> Path:
    """Return the folder of one model below the backend's, which is nobody else's to write."""
    with suppress(OSError):  # whoever cannot write a cache goes without
        backend.mkdir(0o700, parents=True, exist_ok=True)
    return backend / key


def _engine(backend: Backend) -> str:
    """Return the versions of emberd and of the libraries that this backend computes with."""
    versions = [("emberd", __version__), *((name, _version(name)) for name in backend.libraries)]
    return ", ".join(f"{name} {version}" for name, version in versions)


def _version(library: str) -> str:
    """Return a library's version: what its imported module says, else what was installed."""
    stated = getattr(sys.modules.get(library), "__version__", None)
    if stated:
        return str(stated)
    from importlib import metadata  # 35 ms, which a cold start need not spend

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def _max_tokens(spec: ModelSpec, folder: Path) -> int:
    limit = limit_of_checkpoint(folder)
    if spec.max_tokens is None and limit is None:
        raise ModelLoadError(
            f"Neither the registry nor the checkpoint says how many tokens {spec.name} takes.",
            hint=f"Add models.{spec.name}.max_tokens to the config file.",
        )
    if spec.max_tokens is not None and limit is not None and spec.max_tokens > limit:
        raise ModelLoadError(
            f"The registry says {spec.max_tokens} tokens for {spec.name} and the checkpoint has"
            f" positions for {limit}.",
            hint=f"Lower models.{spec.name}.max_tokens.",
        )
    return spec.max_tokens or limit or 0
