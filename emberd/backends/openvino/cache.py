"""Compiled models on disk, so that a second start neither reads weights nor compiles.

A file is what OpenVINO exports, followed by a seal (see `_seal`). It is mapped, not read: what the
engine repacks or never touches takes no memory. An existing file is never written to, so two
processes may create the same one at once, and the last rename wins.

Every start verifies the sums of its pages, at the speed of memory and in several threads. Hashing
all of it would take as long as the rest of a start, so that happens after the first answer
(`CachedModel.audit`).
"""

import hashlib
import io
import logging
import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emberd.backends.base import LoadRequest
from emberd.backends.mapped import map_file, release, released_meanwhile
from emberd.backends.openvino.runtime import DEVICE, capabilities
from emberd.processor import processor
from emberd.replacing import replacing

if TYPE_CHECKING:
    from openvino import CompiledModel, Core

_PAGE_BYTES = 4096
_DIGEST_BYTES = 32
_SEAL_BYTES = 2 * _DIGEST_BYTES
_WINDOW_BYTES = 4 * 2**20
_READERS = 4  # threads
_ABANDONED_AFTER_S = 3600.0

Done = Callable[[int, int], None]
"""Is told which bytes, from and to, are no longer needed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A compiled model, and the mapped file at `path` that backs it."""

    model: "CompiledModel"
    path: Path
    pages: mmap.mmap

    def release_pages(self, start: int = 0, stop: int | None = None) -> None:
        """Release the file's pages that count as this process's memory.

        They are clean: a page that is needed again comes back from the system's file cache.
        """
        release(self.pages, start, stop)

    def audit(self) -> str | None:
        """Hash the whole file; if it is damaged, delete it and say so, else return None.

        Runs beside everything else: it takes the GIL only for a moment every few MiB, and never
        more than those few MiB of memory.
        """
        if _has_its_hash(self.pages, self.release_pages):
            return None
        with suppress(OSError):
            self.path.unlink()
        return f"the compiled model {self.path}, which has been deleted"

    def again(self, core: "Core", config: dict[str, Any]) -> "CompiledModel":
        """Import it a second time, with another configuration. Raises RuntimeError."""
        return _import(core, self.pages, config)


class Cache:
    """The one file that fits a request, in the request's cache folder."""

    def __init__(self, core: "Core", request: LoadRequest, config: dict[str, Any]) -> None:
        """Name the file after everything that a compiled model depends on; nothing is read yet."""
        what = _digest(request.cache_key, request.precision, request.pooling)
        where = _digest(
            core.get_property(DEVICE, "FULL_DEVICE_NAME"),
            *sorted(capabilities(core)),
            processor(),
            *(f"{key}={config[key]}" for key in sorted(config)),
        )
        made_by = _digest(core.get_versions(DEVICE)[DEVICE].build_number, _code())
        self._core = core
        self._config = config
        self._python_is_free = request.python_is_free
        self._path = request.cache / f"{what}-{where}-{made_by}.blob"
        self._pattern_of_all_versions = f"{what}-{where}-*.blob"

    @property
    def file(self) -> str:
        """Its name."""
        return self._path.name

    def load(self) -> CachedModel | None:
        """Return the model; None if it cannot be read, or was damaged and is now deleted."""
        try:
            pages = _map(self._path)
            self._python_is_free()
            model = _import(self._core, pages, self._config)
        except OSError:  # most often: there is no such file
            return None
        except (ValueError, RuntimeError) as error:
            logger.warning("%s is damaged and will be compiled again: %s", self._path, error)
            with suppress(OSError):
                self._path.unlink()
            return None
        return CachedModel(model, self._path, pages)

    def store(self, model: "CompiledModel") -> bool:
        """Write the model, and say whether that went well; if not, only log a warning."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.parent.chmod(0o700)  # the engine trusts what it imports
            self._sweep()
            with replacing(self._path, sync=False) as file:  # its seal reveals damage
                _export(model, file)
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
                    file.write(_seal_of(self._path.name, pages))
        # RuntimeError: the engine cannot export here
        except (OSError, RuntimeError, MemoryError) as error:
            logger.warning("A compiled model cannot be written to %s: %s", self._path.parent, error)
            return False
        return True

    def _sweep(self) -> None:
        """Delete files that no process will use again."""
        for path in self._path.parent.glob(self._pattern_of_all_versions):
            if path != self._path:
                path.unlink(missing_ok=True)
        for path in self._path.parent.glob("*.part"):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                path.unlink(missing_ok=True)


def exported(model: "CompiledModel", *into: io.BytesIO) -> io.BytesIO | None:
    """Do what `export_model` does, and raise MemoryError for a lack of memory.

    The engine's stream is then gone before its last flush, which is all that it says.
    """
    try:
        found: io.BytesIO | None = model.export_model(*into)
    except (AttributeError, ValueError) as error:
        raise MemoryError from error
    return found


class _Into(io.BytesIO):
    """Passes on to a file what the engine writes: it takes no file, and a blob may be large.

    An error must be kept: the engine's stream does not pass it on.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        """Write to the file."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek in the file."""
        return self._file.seek(offset, whence)


def _export(model: "CompiledModel", file: IO[bytes]) -> None:
    """Write a model to an empty file, one constant at a time, and leave the file at its end."""
    into = _Into(file)
    exported(model, into)
    if into.error:
        raise into.error
    file.seek(0, os.SEEK_END)
    file.flush()


def _map(path: Path) -> mmap.mmap:
    """Map a file; ValueError if its seal is wrong."""
    pages = map_file(path)
    content = np.frombuffer(pages, np.uint8)
    blob, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:].tobytes()
    done = partial(release, pages)
    if seal != _seal(path.name, blob, seal[:_DIGEST_BYTES], done):
        raise ValueError("its seal is wrong")
    # If it cannot be deleted later, a damaged file would be used again at the next start.
    if not os.access(path.parent, os.W_OK) and not _has_its_hash(pages, done):
        raise ValueError("its hash is wrong")
    return pages


def _import(core: "Core", pages: mmap.mmap, config: dict[str, Any]) -> "CompiledModel":
    """Import the blob in a mapped file, which the model goes on to use. Raises RuntimeError."""
    from openvino import Tensor

    blob = Tensor(np.frombuffer(pages, np.uint8)[:-_SEAL_BYTES], shared_memory=True)
    with released_meanwhile(partial(release, pages)):
        return core.import_model(blob, DEVICE, config)


def _has_its_hash(pages: mmap.mmap, done: Done) -> bool:
    """Say whether a mapped blob has the hash in its seal; call `done` after each part of it."""
    end = len(pages) - _SEAL_BYTES
    return memoryview(pages)[end:][:_DIGEST_BYTES] == _sha256(pages, end, done)


def _sha256(pages: mmap.mmap, end: int, done: Done) -> bytes:
    """Return the hash of all up to `end`."""
    digest, content = hashlib.sha256(), memoryview(pages)
    for start in range(0, end, _WINDOW_BYTES):
        stop = min(start + _WINDOW_BYTES, end)
        digest.update(content[start:stop])
        done(start, stop)
    return digest.digest()


def _seal_of(name: str, pages: mmap.mmap) -> bytes:
    """Return what is to follow a blob that has been written."""
    done = partial(release, pages)
    sha256 = _sha256(pages, len(pages), done)
    blob = np.frombuffer(pages, np.uint8)
    return _seal(name, blob, sha256, done)


def _seal(
    name: str, blob: npt.NDArray[np.uint8], sha256: bytes, done: Done = lambda _start, _stop: None
) -> bytes:
    """Return what follows a blob in its file: its SHA-256, and a digest that every start computes.

    The digest covers the file's name, the blob's length, that SHA-256, and the sum of each page (in
    8-byte words). It detects pages that were swapped or zeroed, the blob of another model, and a
    changed seal; it misses only changes within a page that cancel each other out. `done` is called
    after each part of the blob, in any order and from several threads.
    """
    whole = len(blob) // 8 * 8

    def sums(start: int) -> npt.NDArray[np.uint64]:
        stop = min(start + _WINDOW_BYTES, whole)
        words = blob[start:stop].view("<u8")
        found = np.add.reduceat(words, np.arange(0, len(words), _PAGE_BYTES // 8))
        done(start, stop)
        return found

    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(f"{name}\0{len(blob)}\0".encode())
    digest.update(sha256)
    with ThreadPoolExecutor(_READERS) as threads:
        for each in threads.map(sums, range(0, whole, _WINDOW_BYTES)):
            digest.update(each.data)
    digest.update(blob[whole:].data)
    return sha256 + digest.digest()


def _code() -> str:
    """Return our own code that makes weights and graphs: when it changes, so do compiled models."""
    folder = Path(__file__).parents[1]
    return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
