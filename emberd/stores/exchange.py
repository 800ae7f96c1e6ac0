"""Puts a file or folder in the place of another in one step, and the other in its place.

Linux and macOS have a call for that. Where the file system does not, a file still changes in one
step, and a folder is away for the time between two renames. What was there is `NAME.aside` until
both are done: a kill in between leaves it so, and `is_there` or `mended` sees to that.
"""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from emberd.flock import locked
from emberd.spaces.stores import folder_beside

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # Linux, renameat2
RENAME_SWAP = 2  # macOS, renamex_np
ASIDE = ".aside"
CALL = "renamex_np" if sys.platform == "darwin" else "renameat2"
WITHOUT = ("9p", "cifs", "exfat", "fuseblk", "msdos", "nfs", "nfs4", "smb3", "vfat")
NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange(new: Path, place: Path) -> None:
    """Exchange two files, or two folders, of one file system. Raises OSError."""
    if _exchanged(new, place):
        return
    aside = aside_of(new)
    if place.is_dir():
        place.rename(aside)
        try:
            new.rename(place)
        except OSError:
            with suppress(OSError):
                aside.rename(place)
            raise
    else:
        aside.unlink(missing_ok=True)
        os.link(place, aside)
        new.replace(place)
    with suppress(FileNotFoundError):  # somebody has mended it by now
        aside.rename(new)


def is_there(place: Path) -> bool:
    """Whether there is a file or folder; one that was away when an exchange stopped is put back."""
    if place.exists():
        return True
    place = place.resolve()
    beside = folder_beside(place)
    for aside in beside.glob(f"*{ASIDE}"):
        with suppress(OSError), locked(beside / "lock", within_s=1.0):
            if not place.exists():
                aside.rename(place)
    return place.exists()


def mended(new: Path) -> Path:
    """Return `new` once what was in its place is there, if an exchange was stopped before that."""
    if not new.exists() and aside_of(new).exists():
        with suppress(FileNotFoundError):
            aside_of(new).rename(new)
    return new


def aside_of(new: Path) -> Path:
    """Return where the other one is meanwhile."""
    return new.with_name(f"{new.name}{ASIDE}")


def is_one_step(place: Path) -> bool:
    """Whether it can be exchanged in one step, as far as can be told without writing anything."""
    if getattr(ctypes.CDLL(None), CALL, None) is None:
        return False
    return _file_system(place.resolve()) not in WITHOUT


def _file_system(place: Path) -> str:
    """Return the type of the file system of a place; "" if that is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    found = ("", "")  # the longest mount point above the place, and its type
    for line in lines:
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        if place.is_relative_to(point) and len(point) >= len(found[0]):
            found = point, fields[fields.index("-") + 1]
    return found[1]


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange them in one step; False if that cannot be done here."""
    call = getattr(ctypes.CDLL(None, use_errno=True), CALL, None)
    if call is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        failed = call(*paths, ctypes.c_uint(RENAME_SWAP))
    else:
        failed = call(AT_FDCWD, paths[0], AT_FDCWD, paths[1], ctypes.c_uint(RENAME_EXCHANGE))
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(other))
