"""What commands do with the file: look into it, empty it, and drop what removed models left."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from emberd.cache.database import Database, Held
from emberd.errors import RequestError

BESIDE = ("", "-wal", "-shm")  # the file, and what SQLite keeps beside it while it is open


@dataclass(frozen=True, slots=True)
class Overview:
    """What the file takes on disk, and what it holds of each space, the largest first."""

    size_bytes: int
    held: list[Held]

    @property
    def entries(self) -> int:
        """How many vectors it has."""
        return sum(each.entries for each in self.held)


def size_of(file: Path) -> int:
    """Return the bytes of the file and what is beside it; 0 if it does not exist."""
    paths = (file.with_name(file.name + end) for end in BESIDE)
    return sum(path.stat().st_size for path in paths if path.is_file())


def look(file: Path) -> Overview:
    """Look into the file, if there is one.

    Raises:
        RequestError: it cannot be opened; the message says why.
    """
    with _opened(file) as database:
        held = database.held() if database else []
    return Overview(size_of(file), held)


def clear(file: Path) -> int:
    """Delete all vectors; return how many bytes of disk that freed. Raises as `look`."""
    before = size_of(file)
    with _opened(file) as database:
        if database:
            database.reset()
    return max(0, before - size_of(file))


def forget(file: Path, fingerprints: Collection[str]) -> int:
    """Delete the vectors of these spaces; return how many there were. Raises as `look`."""
    if not fingerprints:
        return 0
    with _opened(file) as database:
        return database.forget(fingerprints) if database else 0


@contextmanager
def _opened(file: Path) -> Iterator[Database | None]:
    """Open the file, whatever its limit; None if it does not exist."""
    if not file.exists():
        yield None
        return
    try:
        database = Database(file, None)
        try:
            yield database
        finally:
            database.close()
    except apsw.BusyError:
        raise RequestError(
            f"{file} is locked by another process.", hint="Try again in a moment."
        ) from None
    except (apsw.Error, OSError) as error:
        raise RequestError(
            f"{file} cannot be used: {error}.",
            hint="Stop the server and delete that file: nothing but speed is lost.",
        ) from None
