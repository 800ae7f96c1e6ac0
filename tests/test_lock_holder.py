"""Who is said to hold a lock where the system does not tell: whoever is written in its file."""

import os
from pathlib import Path

import psutil
import pytest

from emberd import flock
from emberd.flock import LockedError, hold

NOBODY = 2**31 - 1  # above every process id


def holder(file: Path, wrote: str) -> str:
    """Return who is said to hold a lock in whose file this was written."""
    descriptor = hold(file, 0)
    try:
        file.write_text(wrote)
        with pytest.raises(LockedError) as caught:
            hold(file, 0)
    finally:
        os.close(descriptor)
    return caught.value.holder


@pytest.fixture(params=["no /proc/locks", "a /proc/locks without it", "a damaged /proc/locks"])
def _without_the_system(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hide what Linux would say."""
    listing = tmp_path / "locks"
    if request.param == "a /proc/locks without it":
        listing.write_text("1: FLOCK  ADVISORY  WRITE 1 00:00:0 0 EOF\n")
    elif request.param == "a damaged /proc/locks":
        listing.write_text("1: FLOCK\n")
    monkeypatch.setattr(flock, "LOCKS", listing)


@pytest.mark.usefixtures("_without_the_system")
def test_whoever_wrote_its_id_is_named_as_far_as_it_is_known(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    parent = psutil.Process(os.getppid())

    assert holder(file, str(parent.pid)) == f"process {parent.pid} ({parent.name()})"
    assert holder(file, str(NOBODY)) == f"process {NOBODY}"  # it has ended
    assert holder(file, str(os.getpid())) == "another process"
    assert holder(file, "half a n") == "another process"
