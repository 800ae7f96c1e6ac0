"""The one kind of lock: who holds it, how long others wait, and what is left behind.

What other parts make of a lock that is held for ever: tests/faults/test_locks.py.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emberd.flock import LockedError, hold, locked


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_lock_is_held_once_and_free_afterwards(file: Path) -> None:
    with locked(file, 0):
        with pytest.raises(LockedError) as held, locked(file, 0):
            pass
        assert file.read_text() == str(os.getpid())
        assert file.stat().st_mode & 0o777 == 0o600

    assert held.value.filename == str(file)
    assert held.value.holder in str(held.value.strerror)
    with locked(file, 0):
        pass
    assert file.read_text() == ""


def test_it_is_waited_for(file: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        with locked(file, 0):
            waiting = thread.submit(lambda: os.close(hold(file, 30)))
            time.sleep(0.1)
            assert not waiting.done()
        waiting.result(30)


def test_a_descriptor_holds_it_until_it_is_closed(file: Path) -> None:
    descriptor = hold(file, 0)
    with pytest.raises(LockedError):
        hold(file, 0)
    os.close(descriptor)

    os.close(hold(file, 0))


def test_it_may_leave_nothing_behind(file: Path) -> None:
    with locked(file, 0, leave=False):
        assert file.exists()

    assert not file.exists()


def test_whoever_waits_for_a_file_that_is_removed_holds_the_next_one(file: Path) -> None:
    """Otherwise a third process would make it anew, and two would hold "the" lock."""
    with ThreadPoolExecutor(1) as thread:
        with locked(file, 0, leave=False):
            waiting = thread.submit(hold, file, 30)
            time.sleep(0.1)
        descriptor = waiting.result(30)

    assert os.path.samestat(os.fstat(descriptor), file.stat())
    os.close(descriptor)


def test_a_failure_inside_frees_it(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(file, 0):
        _ = 1 // 0

    os.close(hold(file, 0))
