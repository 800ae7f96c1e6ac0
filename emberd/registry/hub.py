"""A Hub repository -> a folder in the Hub's own cache: resumed, checked, with progress.

The one home of huggingface_hub, which is imported only here, when something has to be downloaded.
Large files are fetched by us into `blobs/SHA256.part`, which survives a stop of any kind and is
renamed when its hash is right; the library then fetches the small ones and links the snapshot.
(The library itself starts a file anew whenever its process was stopped.)
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any, Self

from emberd.errors import SourceError
from emberd.registry.local import hub_repository, hub_snapshot
from emberd.registry.spec import Source

REACH_TIMEOUT_S = 5.0  # for the first answer of the Hub; a download that moves may take hours
PARALLEL_FILES = 4
CHUNK_BYTES = 2**16  # what a stop may lose; the library's 10 MiB make progress jump, too
SPARE_BYTES = 64 * 2**20  # left free on the disk

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all, often and from any thread."""


def download(source: Source, hub: Path, files: Sequence[str], report: Report) -> Path:
    """Download what `files` match of a Hub repository into the Hub's cache; return the snapshot.

    What is there already is not fetched again, and half a file is continued.

    Raises:
        SourceError: in a few seconds when the Hub is out of reach; the message says why.
    """
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return _download(source, hub, files, report)
    except HfHubHTTPError as error:
        raise SourceError(_explain_status(error.response.status_code, source)) from None
    except OfflineModeIsEnabled:
        why = "not in the Hub's cache, and HF_HUB_OFFLINE forbids to download"
        raise SourceError(why) from None
    except (httpx2.HTTPError, LocalEntryNotFoundError, TimeoutError) as error:
        raise SourceError(f"the Hub cannot be reached ({type(error).__name__})") from None
    except HFValidationError as error:
        raise SourceError(f"the Hub has no such names: {error}") from None
    except ValueError:  # a portal's or proxy's page in place of the answer
        raise SourceError("what answers in the Hub's place is not the Hub") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise SourceError(f"the disk that holds {hub} is full") from None
        why = error.strerror or str(error)[:200] or type(error).__name__
        raise SourceError(f"the download failed: {why}") from None


def _download(source: Source, hub: Path, files: Sequence[str], report: Report) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True  # it costs a request, up to 3 s, before the first
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    repository = source.hf or ""
    info = HfApi().model_info(
        repository, revision=source.revision, files_metadata=True, timeout=REACH_TIMEOUT_S
    )
    wanted = [
        file
        for file in info.siblings or []
        if any(fnmatch(file.rfilename, pattern) for pattern in files)
    ]
    if not any(file.rfilename.endswith(".safetensors") for file in wanted):
        raise SourceError("the repository holds no weights that emberd reads")
    blobs = hub_repository(repository, hub) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    large = [
        _Large(repository, file.rfilename, info.sha or "", file.lfs.size, file.lfs.sha256, blobs)
        for file in wanted
        if file.lfs
    ]
    snapshot = hub_snapshot(repository, info.sha or "", hub)
    there = sum(file.size_there() for file in large) + sum(
        file.size or 0
        for file in wanted
        if not file.lfs and snapshot and (snapshot / file.rfilename).is_file()
    )
    progress = _Progress(report, there, sum(file.size or 0 for file in wanted))
    missing = sum(file.size for file in large) - sum(file.size_there() for file in large)
    if missing and missing + SPARE_BYTES > shutil.disk_usage(blobs).free:
        raise OSError(errno.ENOSPC, "the disk is full")
    with ThreadPoolExecutor(PARALLEL_FILES) as threads:
        for done in [threads.submit(file.fetch, progress) for file in large]:
            done.result()
    disable_progress_bars()  # ours is drawn from `report`; theirs would write to the log
    folder = snapshot_download(
        repository,
        revision=source.revision,
        cache_dir=hub,
        allow_patterns=sorted(file.rfilename for file in wanted),
        etag_timeout=REACH_TIMEOUT_S,
    )
    progress.finish()
    return Path(folder)


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

    def size_there(self) -> int:
        """Return how many of its bytes need not be fetched any more."""
        if self._whole.exists():
            return self.size
        return self._part.stat().st_size if self._part.exists() else 0

    def fetch(self, progress: "_Progress") -> None:
        """Fetch what is missing; another process that does the same is waited for."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils._headers import build_hf_headers

        with self._part.open("ab", buffering=0) as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if self._whole.exists():
                self._part.unlink(missing_ok=True)
                return
            part.seek(0, os.SEEK_END)  # who was waited for may have added to it
            if part.tell() > self.size:
                part.seek(0)
                part.truncate()
            if part.tell() < self.size:
                http_get(
                    hf_hub_url(self.repository, self.name, revision=self.commit),
                    part,
                    resume_size=part.tell(),
                    headers=build_hf_headers(),
                    expected_size=self.size,
                    tqdm_class=progress.for_one_file,  # type: ignore[arg-type]
                )
            with self._part.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self.sha256:
                self._part.unlink()
                raise SourceError(f"{self.name} arrived with another hash than the Hub states")
            self._part.replace(self._whole)


class _Progress:
    """Bytes of all files together; thread-safe."""

    def __init__(self, report: Report, done: int, total: int) -> None:
        self._report = report
        self._done = done
        self._total = total
        self._lock = Lock()
        self.add(0)

    def add(self, count: int) -> None:
        """Count some bytes; the report is inside the lock, or two threads could tell backwards."""
        with self._lock:
            self._done += count
            self._report(min(self._done, self._total), self._total)

    def finish(self) -> None:
        """Say that all is there."""
        with self._lock:
            self._report(self._total, self._total)

    def for_one_file(self, *_: Any, **__: Any) -> "_Bar":  # noqa: ANN401 - called as tqdm is
        """Return what huggingface_hub takes for a tqdm bar."""
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


def _explain_status(status: int, source: Source) -> str:
    if status in (401, 403):
        return (
            "the repository is gated, private or does not exist"
            " (accept its terms on the Hub and set HF_TOKEN)"
        )
    if status == 404:
        wanted = f"or no revision {source.revision!r}" if source.revision else "of that name"
        return f"the Hub has no repository {wanted}"
    if status == 429:
        return "the Hub refuses for now: too many requests"
    return f"the Hub answered with status {status}"
