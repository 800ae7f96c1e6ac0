"""A small disk that tests may fill."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class CannotMountError(Exception):
    """Only root may, and not everywhere."""


@contextmanager
def mounted(folder: Path, size_mib: int) -> Iterator[Path]:
    """Mount a disk of this size at a folder, which is made. Raises CannotMountError."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        raise CannotMountError(f"{folder}: a disk of its own cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def fill(folder: Path) -> Path:
    """Leave nothing of a disk; return the file that takes it."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return hog
