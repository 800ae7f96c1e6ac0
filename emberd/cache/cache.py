"""What a worker sees: vectors that are there at once, or not at all. Nothing here raises or waits.

What a batch gave is kept in memory until a thread of low priority has written it, many at once;
until then it is found there. Whatever is wrong with the file costs this speed, and no answers.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread, get_native_id

import apsw

from emberd.cache.database import Database, Reader, Space
from emberd.cache.keys import keys_of, read_secret
from emberd.cache.rows import Kept, pack, unpack

LOW_PRIORITY = 10  # niceness: a tenth of a busy core
GATHER_S = 0.5  # before what is new is written
NOTE_S = 5.0  # before it is written which keys were used
RETRY_S = 30.0  # after an error
READERS = 2  # at once: who reads what the server sends, and who tokenizes the rest
MOST_PENDING_BYTES = 32 * 2**20
CHUNK_BYTES = 2**20  # written at once, so that others need not wait for long

DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError)  # or without its tables

Pending = dict[tuple[object, ...], dict[str, Kept]]  # what decides the vectors, and their texts


class VectorCache:
    """The vectors of one model in the file that all models share.

    Opens the file in its own thread. `enter` says which space the vectors belong to, and `trust`
    that what the model computes is right; before that, nothing is written.
    """

    def __init__(
        self, file: Path, secret: Path, most_bytes: int, log: Callable[[str], None]
    ) -> None:
        self._file, self._secret_file = file, secret
        self._most_bytes = most_bytes
        self._log = log
        self._said: set[str] = set()
        self._space: Space | None = None
        self._vector_bytes = 0
        self._secret: bytes | None = None  # once the file is open
        self._readers: list[Reader] = []  # that nobody uses at the moment
        self._lock = Lock()
        self._pending: Pending = {}
        self._pending_bytes = 0
        self._writing: Pending = {}
        self._used: set[bytes] = set()
        self._hits = self._misses = 0
        self._is_trusted = False
        self._is_damaged = False
        self._stopped_until_s = 0.0
        self._something = Event()  # to write, or the end
        self._closing = Event()
        self._thread = Thread(target=self._run, name="vectors", daemon=True)
        self._thread.start()

    def enter(self, space: Space, dimensions: int) -> None:
        """Say what is read and kept from now on: vectors of this space, of so many numbers."""
        self._vector_bytes = 4 * dimensions
        self._space = space

    def trust(self) -> None:
        """Write what was and will be kept: the model has been checked for damage."""
        self._is_trusted = True
        self._something.set()

    # -- in the threads that answer ---------------------------------------------------------

    def find(self, decides: tuple[object, ...], texts: Sequence[str]) -> dict[str, Kept]:
        """Return what is kept of these texts; `decides` is what else decides their vectors."""
        found = self._in_memory(decides, texts)
        rest = [text for text in texts if text not in found]
        keys: list[bytes] = []
        if rest and self._secret and self._space:
            keys = keys_of(self._secret, [self._space.identity, *decides], rest)
            rows = self._on_disk(keys)
            for text, key in zip(rest, keys, strict=True) if rows else ():
                kept = unpack(key, rows.get(key), self._vector_bytes)
                if kept:
                    found[text] = kept
        with self._lock:
            self._used.update(key for text, key in zip(rest, keys, strict=False) if text in found)
            self._hits += len(found)
            self._misses += len(texts) - len(found)
        if found:
            self._something.set()
        return found

    def _in_memory(self, decides: tuple[object, ...], texts: Sequence[str]) -> dict[str, Kept]:
        with self._lock:
            new = [
                kept for kept in (self._pending.get(decides), self._writing.get(decides)) if kept
            ]
            return {text: kept[text] for kept in new for text in kept.keys() & texts}

    def _on_disk(self, keys: Sequence[bytes]) -> dict[bytes, object]:
        """Return the rows of these keys; none if both readers are busy, or something is wrong."""
        try:
            reader = self._readers.pop()
        except IndexError:
            return {}
        try:
            rows = reader.find(keys)
        except (apsw.BusyError, apsw.LockedError):
            rows = {}
        except apsw.Error as error:
            reader.close()
            self._stop(error)
            return {}
        self._readers.append(reader)
        return rows

    def keep(self, decides: tuple[object, ...], vectors: Mapping[str, Kept]) -> None:
        """Keep vectors of texts; if more come than can be written, some are not kept."""
        if time.monotonic() < self._stopped_until_s or self._pending_bytes > MOST_PENDING_BYTES:
            return
        with self._lock:
            self._pending.setdefault(decides, {}).update(vectors)
            self._pending_bytes += self._vector_bytes * len(vectors)
        if self._is_trusted:
            self._something.set()

    def close(self, within_s: float) -> None:
        """Write what is left, if that does not take longer than this."""
        self._closing.set()
        self._something.set()
        self._thread.join(within_s)

    # -- in the thread that writes ----------------------------------------------------------

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # on Linux each thread has its own niceness
            os.setpriority(os.PRIO_PROCESS, get_native_id(), LOW_PRIORITY)
        database = self._open()
        closing = False
        while not closing:
            self._something.wait()
            self._something.clear()
            closing = self._closing.wait(GATHER_S if self._pending and self._is_trusted else NOTE_S)
            if database and self._is_damaged:
                database.close()
                database = None
            if time.monotonic() >= self._stopped_until_s:
                database = self._flush(database or self._open())
        for each in (*self._readers, *([database] if database else ())):
            each.close()  # the last one empties the log

    def _open(self) -> Database | None:
        """Open the file to read and to write; None if that fails.

        What is damaged is emptied.
        """
        try:
            secret = read_secret(self._secret_file)
            database = Database(self._file, self._most_bytes)
            if self._is_damaged:
                database.reset()
            self._is_damaged = False
            self._readers = [Reader(self._file) for _ in range(READERS)]
        except (apsw.Error, OSError) as error:
            self._stop(error)
            return None
        self._secret = secret
        return database

    def _flush(self, database: Database | None) -> Database | None:
        """Write what there is; None if the file has to be opened again."""
        if not database or not self._space:
            return database
        with self._lock:
            used, hits, misses = self._used, self._hits, self._misses
            self._used, self._hits, self._misses = set(), 0, 0
            if self._is_trusted:
                self._writing, self._pending, self._pending_bytes = self._pending, {}, 0
        try:
            if used or hits or misses:
                database.note(self._space, used, hits, misses)
            for chunk in self._chunks():
                database.put(self._space, chunk)
        except (apsw.Error, OSError) as error:
            self._stop(error)
            database.close()
            return None
        finally:
            with self._lock:
                self._writing = {}
        return database

    def _chunks(self) -> Iterable[list[tuple[bytes, bytes]]]:
        """Yield keys and rows of what is being written."""
        assert self._secret and self._space  # the file is open
        chunk: list[tuple[bytes, bytes]] = []
        size = 0
        for decides, vectors in self._writing.items():
            identity = [self._space.identity, *decides]
            keys = keys_of(self._secret, identity, vectors)
            for key, kept in zip(keys, vectors.values(), strict=True):
                chunk.append((key, pack(key, kept)))
                size += len(kept.vector)
                if size > CHUNK_BYTES:
                    yield chunk
                    chunk, size = [], 0
        if chunk:
            yield chunk

    def _stop(self, error: Exception) -> None:
        """Use no file until it has been opened again, and say why, once for each reason."""
        self._readers = []
        self._is_damaged = isinstance(error, DAMAGED)
        if self._is_damaged:
            self._something.set()  # it can be used again as soon as it is empty
        else:
            self._stopped_until_s = time.monotonic() + RETRY_S
        reason = type(error).__name__
        if reason not in self._said:
            self._said.add(reason)
            self._log(f"the cache of vectors cannot be used at the moment: {reason}")
