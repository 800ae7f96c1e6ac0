"""Downloads a Hub repository into the Hub's own cache: resumable, checked, with progress.

Only this file and `hub_errors.py` import huggingface_hub, and only if the Hub must be asked. The
library takes up a broken transfer again, up to five times without a new byte. emberd has it fetch
large files into `blobs/SHA256.part`, which survives a stop of any kind and is renamed once its hash
is right. (By itself it starts a file again from the beginning if its process was stopped.) It
fetches the small files and links the snapshot: weights last, and after them the ref, so that a
snapshot with a ref is complete.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from emberd.errors import SourceError
from emberd.files import size_of
from emberd.flock import LockedError, locked
from emberd.models.hub_errors import endpoint, explained
from emberd.models.local import DIGEST, ONNX, ONNX_FILE, discard, has_digest, hub_repository
from emberd.registry.spec import Source, is_below
from emberd.units import format_size

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

REACH_TIMEOUT_S = 5.0  # for the Hub's first answer; a download that makes progress may take hours
PARALLEL_FILES = 4
CHUNK_BYTES = 2**16  # what a stop may lose; with the library's 10 MiB, progress would jump
STANDS_STILL_S = 25.0  # without a new byte; a worker that waits longer counts as stuck itself
SPARE_BYTES = 64 * 2**20  # left free on the disk

OnProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, often and from any thread."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What the Hub says about a repository: the revision's commit, and digests by file name."""

    commit: str
    digests: Mapping[str, str]


def look_up(source: Source, hub: Path, files: Sequence[str], commit: str) -> Stated:
    """Ask for the source's current commit, and the digests in `commit` of what `files` match.

    Raises:
        SourceError: within seconds if the Hub cannot be reached; the message says why.
    """
    with explained(source, hub):
        now = _ask(source)
        then = now if now.sha == commit else _ask(Source(hf=source.hf, revision=commit))
        digests = {file.rfilename: _digest(file) for file in _wanted(then, files)}
        return Stated(now.sha or "", {name: digest for name, digest in digests.items() if digest})


@dataclass(frozen=True, slots=True)
class Described:
    """A repository whose weights need not be here.

    Attributes:
        commit: what the source's revision is now.
        folder: the snapshot in the Hub's cache, with the files that describe the model.
        files: all files of the repository, by name, and their bytes.
    """

    commit: str
    folder: Path
    files: Mapping[str, int]


def describe(source: Source, hub: Path, described_by: Sequence[str]) -> Described:
    """Download what `described_by` match of a repository, as `download` would, and no more.

    The snapshot gets no ref, so it does not pass for a model that is here.

    Raises:
        SourceError: as `download`, except that the repository may have no weights.
    """
    with explained(source, hub):
        info = _ask(source)
        pinned = Source(hf=source.hf, revision=info.sha)
        small = [file for file in _wanted(info, described_by) if not _is_weights(file)]
        folder = _fetch(pinned, hub, info, small, lambda done, total: None)
        files = {file.rfilename: file.size or 0 for file in info.siblings or []}
        return Described(info.sha or "", folder, files)


def reach(source: Source, hub: Path) -> str | None:
    """Ask the Hub for a repository; return the Hub's address, or None if we must stay offline.

    Raises:
        SourceError: within seconds if the Hub cannot be reached; the message says why.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return None
    with explained(source, hub):
        _ask(source)
    return endpoint()


def download(source: Source, hub: Path, files: Sequence[str], report: OnProgress) -> Path:
    """Download what `files` match of a Hub repository into the Hub's cache; return the snapshot.

    Files that are already there are not fetched again, and a partial file is continued.

    Raises:
        SourceError: within seconds if the Hub cannot be reached; the message says why.
    """
    with explained(source, hub):
        info = _ask(source)
        return _fetch(source, hub, info, _with_weights(info, files), report)


def _fetch(
    source: Source, hub: Path, info: "ModelInfo", wanted: "list[RepoSibling]", report: OnProgress
) -> Path:
    repository, commit = source.hf or "", info.sha or ""
    folder = hub_repository(repository, hub)
    blobs, snapshot = folder / "blobs", folder / "snapshots" / commit
    blobs.mkdir(parents=True, exist_ok=True)
    small = [file for file in wanted if not file.lfs]
    large = [
        _Large(repository, file.rfilename, commit, file.lfs.size, file.lfs.sha256, blobs)
        for file in wanted
        if file.lfs
    ]
    there = sum(file.size_there() for file in large) + sum(
        file.size or 0 for file in small if (snapshot / file.rfilename).is_file()
    )
    total = sum(file.size or 0 for file in wanted)
    _require_room(total - there, blobs)
    progress = _Progress(report, there, total)
    _link(repository, commit, hub, [file.rfilename for file in small])
    _verify(snapshot, small)
    _in_parallel(large, progress)
    _link(repository, commit, hub, [file.name for file in large])
    if source.revision != commit:
        ref = folder / "refs" / (source.revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
    progress.finish()
    return snapshot


def _ask(source: Source) -> "ModelInfo":
    from huggingface_hub import HfApi, constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # it costs a request, up to 3 s, before the first
    info = HfApi().model_info(
        source.hf or "", revision=source.revision, files_metadata=True, timeout=REACH_TIMEOUT_S
    )
    names = [info.sha or "-", *(file.rfilename for file in info.siblings or [])]
    digests = [file.lfs.sha256 for file in info.siblings or [] if file.lfs]
    if "/" in names[0] or not (all(map(is_below, names)) and all(map(DIGEST.fullmatch, digests))):
        raise ValueError("the listing names files outside of the repository")
    return info


def _wanted(info: "ModelInfo", files: Sequence[str]) -> list["RepoSibling"]:
    return [
        file
        for file in info.siblings or []
        if any(fnmatch(file.rfilename, pattern) for pattern in files)
    ]


def _with_weights(info: "ModelInfo", files: Sequence[str]) -> list["RepoSibling"]:
    """Return what `files` match. Raises SourceError if no weights are among it."""
    wanted = _wanted(info, files)
    if not any(map(_is_weights, wanted)):
        raise no_weights()
    return wanted


def no_weights() -> SourceError:
    """Return the error that a repository has nothing to run."""
    return SourceError(
        "the repository holds no weights that emberd can read",
        hint="Choose a revision or a conversion of the model that has safetensors, or, with"
        f" `backend: {ONNX}`, one that has {ONNX_FILE}.",
    )


def _is_weights(file: "RepoSibling") -> bool:
    return file.rfilename.endswith((".safetensors", ".onnx"))


def _digest(file: "RepoSibling") -> str | None:
    return file.lfs.sha256 if file.lfs else file.blob_id


def _require_room(missing: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if missing and missing + SPARE_BYTES > free:
        raise SourceError(
            f"{format_size(missing)} must be downloaded, but the disk that holds {folder.parent}"
            f" has only {format_size(free)} free"
        )


def _link(repository: str, commit: str, hub: Path, names: Sequence[str]) -> None:
    """Let the library fetch what `blobs` lacks, and link the files into the snapshot."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not names:
        return  # no patterns would mean all files
    disable_progress_bars()  # ours is drawn from `report`; theirs would write to the log
    snapshot_download(
        repository,
        revision=commit,
        cache_dir=hub,
        allow_patterns=sorted(names),
        etag_timeout=REACH_TIMEOUT_S,
    )


def _verify(snapshot: Path, files: Sequence["RepoSibling"]) -> None:
    """Compare small files with the hashes that the Hub states; the library does not."""
    for file in files:
        path = snapshot / file.rfilename
        if not path.is_file():  # the library tolerates a Hub that goes away
            raise SourceError(f"{file.rfilename} did not arrive")
        if file.blob_id and not has_digest(path, file.blob_id):
            discard(path)
            raise SourceError(f"{file.rfilename} arrived with a different hash than the Hub states")


def _in_parallel(files: Sequence["_Large"], progress: "_Progress") -> None:
    """Fetch all; after a failure no other file is begun, and Ctrl-C does not wait for threads."""
    waiting = iter(files)  # shared: each file is taken by one thread
    failures: list[BaseException] = []

    def work() -> None:
        for file in waiting:
            try:
                file.fetch(progress)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)
            if failures:
                return

    threads = [Thread(target=work, daemon=True) for _ in range(min(PARALLEL_FILES, len(files)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True)
class _Large:
    """A file that the Hub keeps by its SHA-256, which is also its name in the cache's `blobs`."""

    repository: str
    name: str
    commit: str
    size: int
    sha256: str
    blobs: Path

    @property
    def _whole(self) -> Path:
        return self.blobs / self.sha256

    @property
    def _part(self) -> Path:
        return self.blobs / f"{self.sha256}.part"

    @property
    def _lock(self) -> Path:
        return self.blobs / f"{self.sha256}.lock"

    def size_there(self) -> int:
        """Return how many of its bytes are already here."""
        if self._whole.exists():
            return self.size
        return size_of(self._part)

    def fetch(self, progress: "_Progress") -> None:
        """Fetch what is missing; wait for another process that is doing the same."""
        with self._alone(progress):
            if self._whole.exists():
                if has_digest(self._whole, self.sha256):
                    self._part.unlink(missing_ok=True)
                    return
                self._whole.unlink()
            with self._part.open("ab") as part:
                if part.tell() > self.size:
                    part.seek(part.truncate(0))
                self._continue(part, progress)
            if not has_digest(self._part, self.sha256):
                self._part.unlink()
                raise SourceError(f"{self.name} arrived with a different hash than the Hub states")
            self._part.replace(self._whole)

    @contextmanager
    def _alone(self, progress: "_Progress") -> Iterator[None]:
        """Keep others out, or wait as long as they make progress. Raises SourceError."""
        size = size_of(self._part)
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(locked(self._lock, STANDS_STILL_S, leave=False))
                    break
                except LockedError as error:
                    grown = size_of(self._part) - size
                    if grown <= 0:
                        raise SourceError(
                            f"{self.name}: {error.strerror}, which is not making progress",
                            hint="Stop that process, then try again.",
                        ) from None
                    size += grown
                    progress.add(grown)
            yield

    def _continue(self, part: BinaryIO, progress: "_Progress") -> None:
        import httpx2
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils._headers import build_hf_headers

        constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
        try:
            http_get(
                hf_hub_url(self.repository, self.name, revision=self.commit),
                part,
                resume_size=part.tell(),
                headers=build_hf_headers(),
                expected_size=self.size,
                tqdm_class=progress.for_one_file,  # type: ignore[arg-type]
            )
        except httpx2.TransportError as error:
            raise SourceError(
                f"the Hub stopped sending {self.name} ({type(error).__name__});"
                " what arrived is kept, and the next pull continues from there"
            ) from None


class _Progress:
    """Bytes of all files together; thread-safe."""

    def __init__(self, report: OnProgress, done: int, total: int) -> None:
        self._report = report
        self._done = done
        self._total = total
        self._lock = Lock()
        self.add(0)

    def add(self, count: int) -> None:
        """Count bytes; the report is made under the lock, so that it never goes backwards."""
        with self._lock:
            self._done += count
            self._report(min(self._done, self._total), self._total)

    def finish(self) -> None:
        """Report that everything is here."""
        with self._lock:
            self._report(self._total, self._total)

    def for_one_file(self, *_: Any, **__: Any) -> "_Bar":  # noqa: ANN401 - called as tqdm is
        """Return an object that huggingface_hub can use like a tqdm bar."""
        return _Bar(self)


class _Bar:
    """As much of tqdm as huggingface_hub uses."""

    def __init__(self, progress: _Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, count: float | None = 1) -> None:
        """Count bytes; negative ones are taken back."""
        self._progress.add(int(count or 0))

    def set_postfix_str(self, *_: object, **__: object) -> None:
        """Nothing is drawn here."""

    def close(self) -> None:
        """Nothing is open."""
