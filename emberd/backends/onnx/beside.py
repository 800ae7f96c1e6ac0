"""An ONNX file with its data really beside it, as OpenVINO wants it.

In the Hub's cache both are links to files elsewhere, and OpenVINO reads no data outside of the
file's own folder, wherever a link in it leads.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from emberd.models.onnx_data import data_files


@contextmanager
def with_data_beside(path: Path, scratch: Path) -> Iterator[Path]:
    """Yield the path of the file, or, for as long as it is read, of a second name in `scratch`.

    Raises:
        OSError: there is no room for a copy, which is needed where files have only one name.
    """
    files = [path.with_name(name) for name in data_files(path)]
    if all(file.resolve().parent == path.parent.resolve() for file in files):
        yield path
        return
    with suppress(OSError):
        scratch.mkdir(0o700, parents=True, exist_ok=True)
    writable = os.access(scratch, os.W_OK)
    with TemporaryDirectory(dir=scratch if writable else None) as folder:
        for file in (path, *files):
            _give_second_name(file.resolve(), Path(folder, file.name))
        yield Path(folder, path.name)


def _give_second_name(file: Path, name: Path) -> None:
    try:
        name.hardlink_to(file)
    except OSError:  # another disk, or somebody else's file
        shutil.copyfile(file, name)
