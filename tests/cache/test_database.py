"""The file of vectors: what is kept is found, its size is limited, and damage costs only speed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from emberd.cache import commands, database
from emberd.cache.database import Database, Reader, Space
from emberd.cache.rows import Kept, pack, unpack
from emberd.errors import RequestError
from tests.disk import CannotMountError, fill, mounted
from tests.powers import powerless
from tests.serving import wait_for

SPACE = Space("here", "minilm", "0123")
OTHER = Space("there", "other", "4567")
DIMENSIONS = 384
MOST_BYTES = 16 * 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "vectors.db"


def row(number: int, dimensions: int = DIMENSIONS) -> tuple[bytes, bytes]:
    """Return a key and what is kept under it."""
    key = number.to_bytes(16, "big")
    vector = random.Random(number).randbytes(4 * dimensions)  # noqa: S311
    return key, pack(key, Kept(3, 4, vector))


def rows(*numbers: int) -> list[tuple[bytes, bytes]]:
    return [row(number) for number in numbers]


def find(file: Path, *numbers: int) -> set[int]:
    """Return which are there; whatever is there has to be right."""
    wanted = dict(rows(*numbers))
    with closing(Reader(file)) as reader:
        found = reader.find(list(wanted))
    intact = {key: value for key, value in found.items() if unpack(key, value, 4 * DIMENSIONS)}
    assert intact.items() <= wanted.items()
    return {int.from_bytes(key, "big") for key in intact}


def fill_up(kept: Database, first: int, count: int, at_once: int = 500) -> None:
    for at in range(first, first + count, at_once):
        kept.put(SPACE, rows(*range(at, min(at + at_once, first + count))))


def test_what_is_kept_is_found_again_in_a_file_for_nobody_else(file: Path) -> None:
    with closing(Database(file, MOST_BYTES)) as kept:
        kept.put(SPACE, rows(1, 2, 3))
        modes = {path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
        assert modes == {0o600}
        assert file.parent.stat().st_mode & 0o777 == 0o700

        assert find(file, 1, 2, 3, 4) == {1, 2, 3}
        kept.put(SPACE, rows(3, 4))  # again

    assert find(file, *range(10)) == {1, 2, 3, 4}
    assert commands.look(file).entries == 4
    with closing(Database(file, MOST_BYTES)):
        assert find(file, *range(600)) == {1, 2, 3, 4}


def test_the_file_stays_within_its_limit_and_the_latest_used_stay(file: Path) -> None:
    fits = 5000  # more than the limit has room for
    largest = 0
    with closing(Database(file, MOST_BYTES)) as kept:
        kept.put(SPACE, rows(0))
        for at in range(1, 3 * fits, 500):
            kept.put(SPACE, rows(*range(at, at + 500)))
            kept._connection.execute("UPDATE entries SET used = used - 10")  # time passes
            kept.note(SPACE, [row(0)[0]], 1, 0)
            largest = max(largest, commands.size_of(file))

    assert largest <= MOST_BYTES
    there = find(file, *range(3 * fits))
    assert 0 in there  # old, but used
    latest = max(there)
    assert set(range(latest - 2000, latest)) <= there
    assert not there & set(range(1, fits))


def test_a_lower_limit_makes_the_file_smaller(file: Path) -> None:
    with closing(Database(file, 4 * MOST_BYTES)) as kept:
        fill_up(kept, 0, 14_000)
    before = file.stat().st_size

    with closing(Database(file, MOST_BYTES)):
        pass

    assert before > MOST_BYTES
    assert commands.size_of(file) <= MOST_BYTES
    assert find(file, *range(13_000, 14_000)) == {*range(13_000, 14_000)}


def test_vectors_of_removed_models_are_deleted_and_their_room_is_given_back(file: Path) -> None:
    with closing(Database(file, 4 * MOST_BYTES)) as kept:
        fill_up(kept, 0, 4_000)
        kept.put(OTHER, rows(9_000))
    before = commands.size_of(file)

    assert commands.forget(file, ["0123", "unknown"]) == 4_000

    assert find(file, *range(10_000)) == {9_000}
    assert commands.size_of(file) < before / 4
    assert [each.model for each in commands.look(file).held] == ["other"]


def test_clearing_leaves_nothing_and_whoever_has_it_open_goes_on(file: Path) -> None:
    with closing(Database(file, MOST_BYTES)) as kept:
        fill_up(kept, 0, 1_000)

        assert commands.clear(file) > 2**20

        assert find(file, *range(1_000)) == set()
        kept.put(SPACE, rows(7))
        assert find(file, 7) == {7}
        assert b"".join(row[-1000:] for _, row in rows(3)) not in file.read_bytes()


def test_commands_need_no_file(file: Path) -> None:
    assert commands.look(file).held == []
    assert commands.clear(file) == commands.forget(file, ["0123"]) == 0
    assert not file.exists()


# -- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_no_vector_is_wrong_and_the_file_works_again(
    file: Path, seed: int
) -> None:
    with closing(Database(file, MOST_BYTES)) as kept:
        fill_up(kept, 0, 1_500)
    draw = random.Random(seed)  # noqa: S311
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice([1, 20, 400])):
        start = draw.choice([0, draw.randrange(len(content))])
        size = draw.choice([1, 16, 4096])
        content[start : start + size] = draw.randbytes(len(content[start : start + size]))
    if seed % 3 == 0:
        del content[draw.randrange(len(content)) :]
    file.write_bytes(content)

    with closing(Database(file, MOST_BYTES)) as kept:
        try:
            find(file, *range(1_500))
            kept.put(SPACE, rows(*range(2_000, 2_300)))
        except apsw.Error:
            kept.reset()
            kept.put(SPACE, rows(*range(2_000, 2_300)))

        assert find(file, *range(2_000, 2_300)) == {*range(2_000, 2_300)}


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000, bytes(100_000)])
def test_a_file_that_is_no_database_becomes_one(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    file.chmod(0o644)

    with closing(Database(file, MOST_BYTES)) as kept:
        kept.put(SPACE, rows(1))

    assert find(file, 1) == {1}
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", [0, database.VERSION + 1])
def test_a_file_of_another_version_is_emptied(file: Path, version: int) -> None:
    file.parent.mkdir()
    with closing(apsw.Connection(str(file))) as old:
        old.execute(f"CREATE TABLE entries(x); PRAGMA user_version = {version}")

    with closing(Database(file, MOST_BYTES)) as kept:
        kept.put(SPACE, rows(1))

    assert find(file, 1) == {1}


@pytest.mark.parametrize("change", ["vector", "tokens", "other key", "shorter"])
def test_a_row_that_was_changed_is_not_taken_for_a_vector(change: str) -> None:
    key, value = row(1)
    assert unpack(key, value, 4 * DIMENSIONS)

    changed = {
        "vector": value[:-1] + bytes([value[-1] ^ 1]),
        "tokens": value[:4] + bytes([value[4] ^ 1]) + value[5:],
        "other key": row(2)[1],
        "shorter": value[:-4],
    }[change]

    assert unpack(key, changed, 4 * DIMENSIONS) is None
    assert unpack(key, None, 4 * DIMENSIONS) is None
    assert unpack(key, "text", 4 * DIMENSIONS) is None


# -- others, and the disk ---------------------------------------------------------------------


@pytest.fixture
def locked(file: Path) -> Iterator[Path]:
    """A file that another connection holds for itself alone."""
    with closing(Database(file, MOST_BYTES)) as kept:
        kept.put(SPACE, rows(1))
    with closing(apsw.Connection(str(file))) as holder:
        holder.pragma("locking_mode", "EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE; DELETE FROM vectors WHERE id = -1")
        yield file


def test_a_lock_that_is_held_is_an_error_and_not_a_wait_for_readers(locked: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(apsw.BusyError), closing(Reader(locked)) as reader:
        reader.find([row(1)[0]])
    with pytest.raises(apsw.BusyError):
        Database(locked, MOST_BYTES, busy_s=0.1)
    with pytest.raises(RequestError, match="locked by another process"):
        commands.look(locked)
    assert time.monotonic() - began_s < 30


WRITES = """
import sys
from pathlib import Path
from emberd.cache.database import Database
from tests.cache.test_database import MOST_BYTES, SPACE, rows
kept = Database(Path(sys.argv[1]), MOST_BYTES)
print("open", flush=True)
at, step = int(sys.argv[2]), int(sys.argv[3])
while True:
    kept.put(SPACE, rows(*range(at, at + step)))
    print(at, flush=True)
    at += step
"""


def writer(file: Path, first: int, step: int = 50) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITES, str(file), str(first), str(step)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def test_a_worker_killed_while_it_writes_leaves_what_it_had_written(file: Path) -> None:
    written: set[int] = set()
    for life in range(4):
        process = writer(file, 10_000 * life)
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        for _ in range(1 + 3 * life):
            at = int(process.stdout.readline())
            written.update(range(at, at + 50))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()

        assert find(file, *written) == written
    with closing(Database(file, MOST_BYTES)) as kept:
        assert kept._connection.pragma("integrity_check") == "ok"


def test_several_workers_write_at_once_within_the_limit(file: Path) -> None:
    processes = [writer(file, 100_000 * number, 200) for number in range(3)]
    try:
        for process in processes:
            assert process.stdout
            while int(process.stdout.readline().replace("open", "0")) % 100_000 < 4_000:
                assert commands.size_of(file) <= MOST_BYTES
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=30)

    with closing(Database(file, MOST_BYTES)) as kept:
        assert kept._connection.pragma("integrity_check") == "ok"
        assert commands.look(file).entries > 1_000


def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path) -> None:
    try:
        with mounted(tmp_path / "disk", 8) as disk:
            file = disk / "vectors.db"
            with closing(Database(file, 64 * 2**20)) as kept:
                kept.put(SPACE, rows(1, 2))
                hog = fill(disk)
                with pytest.raises((apsw.FullError, apsw.IOError)):
                    fill_up(kept, 100, 5_000)
                assert find(file, 1, 2) == {1, 2}
                hog.unlink()
                kept.put(SPACE, rows(3))
                assert find(file, 1, 2, 3) == {1, 2, 3}
    except CannotMountError as error:
        pytest.skip(str(error))


READ_ONLY = """
import sys
from pathlib import Path
import apsw
from emberd.cache.database import Database
try:
    Database(Path(sys.argv[1]), 2**24)
except (apsw.Error, OSError) as error:
    print(type(error).__name__)
"""


def test_a_file_that_may_not_be_written_is_an_error(file: Path) -> None:
    with closing(Database(file, MOST_BYTES)) as kept:
        kept.put(SPACE, rows(1))
    file.chmod(0o400)
    file.parent.chmod(0o500)
    try:
        command = [*powerless(), sys.executable, "-c", READ_ONLY, str(file)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    finally:
        file.parent.chmod(0o700)

    assert ran.stdout.strip() in ("PermissionError", "ReadOnlyError", "CantOpenError")
    wait_for(lambda: find(file, 1) == {1})
