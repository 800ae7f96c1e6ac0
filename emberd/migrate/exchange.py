"""Puts a file or folder in the place of another in one step, and the other in its place.

Linux and macOS have a call for that. Where the file system does not, a file still changes in one
step, and a folder is away for the time between two renames.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # Linux, renameat2
RENAME_SWAP = 2  # macOS, renamex_np
WITHOUT = ("9p", "cifs", "exfat", "fuseblk", "msdos", "nfs", "nfs4", "smb3", "vfat")
NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange(new: Path, place: Path) -> None:
    """Exchange two files, or two folders, of one file system. Raises OSError."""
    if _exchanged(new, place):
        return
    aside = new.with_name(f"{new.name}.aside")
    if place.is_dir():
        place.rename(aside)
        new.rename(place)
    else:
        aside.unlink(missing_ok=True)
        os.link(place, aside)
        new.replace(place)
    aside.rename(new)


def is_one_step(place: Path) -> bool:
    """Whether it can be exchanged in one step, as far as can be told without writing anything."""
    if getattr(ctypes.CDLL(None), _NAME, None) is None:
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
    call = getattr(ctypes.CDLL(None, use_errno=True), _NAME, None)
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


_NAME = "renamex_np" if sys.platform == "darwin" else "renameat2"
