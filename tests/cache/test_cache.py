"""What a worker sees of the cache: vectors, or none; never an error, and never a wait."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from emberd.cache import cache as module
from emberd.cache import commands
from emberd.cache.cache import VectorCache
from emberd.cache.database import Space
from emberd.cache.rows import Kept
from tests.disk import CannotMountError, fill, mounted
from tests.serving import wait_for

DIMENSIONS = 4
DECIDES = ("", None, None, True)
SPACE = Space("here", "minilm", "0123")
MOST_BYTES = 32 * 2**20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for what is written in the background."""
    monkeypatch.setattr(module, "GATHER_S", 0.05)
    monkeypatch.setattr(module, "NOTE_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.3)


def kept(number: int) -> Kept:
    return Kept(3, 5, number.to_bytes(4 * DIMENSIONS, "big"))


class Opened:
    """A cache, and what it logged."""

    def __init__(self, folder: Path, space: Space = SPACE, *, trusted: bool = True) -> None:
        self.said: list[str] = []
        self.file = folder / "vectors.db"
        secret = folder / "state" / "vectors.key"
        self.cache = VectorCache(self.file, secret, MOST_BYTES, self.said.append)
        self.cache.enter(space, DIMENSIONS)
        if trusted:
            self.cache.trust()

    def keep(self, *texts: str, decides: tuple[object, ...] = DECIDES) -> None:
        """Keep vectors."""
        self.cache.keep(decides, {text: kept(len(text)) for text in texts})

    def keeps(self, text: str) -> bool:
        """Keep a vector, and say whether it is found."""
        self.keep(text)
        return bool(self.finds(text))

    def finds(self, *texts: str, decides: tuple[object, ...] = DECIDES) -> set[str]:
        """Return which of these texts are found, and see that their vectors are right."""
        found = self.cache.find(decides, list(texts))
        assert all(each == kept(len(text)) for text, each in found.items())
        return set(found)

    @property
    def entries(self) -> int:
        """How many vectors the file has, for whoever else looks."""
        return commands.look(self.file).entries


@contextmanager
def opened(folder: Path, space: Space = SPACE, *, trusted: bool = True) -> Iterator[Opened]:
    one = Opened(folder, space, trusted=trusted)
    try:
        yield one
    finally:
        one.cache.close(30)


def test_what_is_kept_is_found_at_once_and_by_the_next_worker(tmp_path: Path) -> None:
    with opened(tmp_path) as first:
        first.keep("a", "bb")
        assert first.finds("a", "bb", "ccc") == {"a", "bb"}

    with opened(tmp_path) as second:
        assert wait_for(lambda: second.finds("a", "bb", "ccc")) == {"a", "bb"}
        assert second.said == []


@pytest.mark.parametrize(
    "decides", [("query: ", None, None, True), ("", "q", None, True), ("", None, 7, True)]
)
def test_a_text_with_another_prompt_or_query_is_another(
    tmp_path: Path, decides: tuple[object, ...]
) -> None:
    with opened(tmp_path) as one:
        one.keep("a")
        assert one.finds("a", decides=decides) == set()
        wait_for(lambda: one.entries)
        assert one.finds("a", decides=decides) == set()
        one.keep("a", decides=decides)
        wait_for(lambda: one.entries == 2)


@pytest.mark.parametrize("identity", ["another fingerprint", "another arithmetic"])
def test_another_space_has_nothing_of_this_one(tmp_path: Path, identity: str) -> None:
    with opened(tmp_path) as one:
        one.keep("a")

    with opened(tmp_path, Space(identity, "minilm", "0123")) as other:
        other.keep("bb")
        wait_for(lambda: other.entries == 2)
        assert other.finds("a", "bb") == {"bb"}


def test_what_may_have_been_computed_with_damaged_weights_is_not_written(tmp_path: Path) -> None:
    with opened(tmp_path, trusted=False) as one:
        one.keep("a")
        assert one.finds("a") == {"a"}
        time.sleep(0.3)
        assert one.entries == 0
        one.cache.trust()
        wait_for(lambda: one.entries == 1)

    with opened(tmp_path, trusted=False) as two:
        two.keep("bb")
    assert two.entries == 1


def test_hits_and_misses_are_counted_and_what_is_used_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.keep("a")
        one.finds("a", "bb")
        one.finds("bb")

    [held] = commands.look(one.file).held
    assert (held.hits, held.misses, held.entries) == (1, 2, 1)


def test_no_text_is_in_any_file(tmp_path: Path) -> None:
    text = "a text that nobody else may read"
    with opened(tmp_path) as one:
        one.keep(text)
        wait_for(lambda: one.entries)
        contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    assert len(contents) >= 3
    assert not any(b"nobody else" in content for content in contents)


def test_it_is_closed_within_the_time_it_is_given(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    wait_for(lambda: one.file.exists() and one.entries == 0)
    with closing(apsw.Connection(str(one.file))) as holder:
        holder.set_busy_timeout(20_000)  # ms: it may still be writing its tables
        holder.execute("BEGIN EXCLUSIVE")
        one.keep("a")
        began_s = time.monotonic()
        one.cache.close(0.2)
        assert time.monotonic() - began_s < 4  # and not the five seconds it waits for others


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[200:] = os.urandom(len(content) - 200)
    file.write_bytes(content)


def no_database(file: Path) -> None:
    file.write_bytes(b"something else" * 10_000)


def nothing(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage, no_database, nothing])
def test_a_file_that_is_damaged_is_emptied_by_the_next_worker(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with opened(tmp_path) as one:
        one.keep("a")
    harm(one.file)

    with opened(tmp_path) as two:
        assert two.finds("a") == set()
        two.keep("bb")
        assert two.finds("bb") == {"bb"}

    with opened(tmp_path) as three:
        assert wait_for(lambda: three.finds("a", "bb")) == {"bb"}


def test_a_file_that_is_damaged_while_it_is_open_is_emptied_and_used_again(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        for number in range(40):
            one.keep(*("x" * (100 * number + each) for each in range(100)))
        wait_for(lambda: one.entries >= 3_000)
        commands.forget(one.file, ["nothing of"])  # all of it is in the file, not in its log
        damage(one.file)

        for _ in range(5):
            one.finds("x" * 20, "new")
            one.keep("new")
            time.sleep(0.1)
        assert one.finds("new") == {"new"}

    with opened(tmp_path) as two:
        two.keep("newer")
        assert wait_for(lambda: two.finds("newer") and two.entries)


def test_a_held_lock_costs_what_it_keeps_from_being_written_and_nobody_waits(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as one:
        one.keep("a")
        wait_for(lambda: one.entries == 1)
        with closing(apsw.Connection(str(one.file))) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            began_s = time.monotonic()
            one.keep("bb")
            one.finds("a", "bb", "ccc")
            assert time.monotonic() - began_s < 1
            wait_for(lambda: one.said)
        wait_for(lambda: one.keeps("ccc") and one.entries >= 2)
        assert all("cannot be used at the moment" in line for line in one.said)
        assert len(one.said) == len(set(one.said))


def test_a_full_disk_costs_only_what_is_not_kept(tmp_path: Path) -> None:
    try:
        with mounted(tmp_path / "disk", 8) as disk, opened(disk) as one:
            one.keep("a")
            wait_for(lambda: one.entries == 1)
            hog = fill(disk)
            for number in range(20):
                one.keep(*("x" * (1000 * number + each) for each in range(1000)))
                assert one.finds("a") <= {"a"}
                time.sleep(0.02)
            wait_for(lambda: one.said)
            hog.unlink()
            wait_for(lambda: one.keeps("bb") and one.finds("a", "bb") == {"a", "bb"})
    except CannotMountError as error:
        pytest.skip(str(error))


def test_a_folder_that_cannot_be_made_costs_only_what_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with opened(tmp_path / "cache") as one:
        one.keep("a")
        wait_for(lambda: one.said)
        assert one.finds("bb") == set()
    assert (tmp_path / "cache").read_text() == "a file"
