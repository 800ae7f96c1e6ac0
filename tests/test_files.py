"""What is in a file's place and how large it may be, before any of it is believed."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from emberd import files


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_pipe, "a pipe"), (Path.mkdir, "a folder"), (make_link_to_a_device, "a device")],
)
def test_what_is_no_file_is_not_read_and_never_waited_for(
    make: Callable[[Path], None], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "settings"
    make(path)
    open_files = psutil.Process().num_fds()

    with pytest.raises(OSError, match=f"it is {kind}") as caught:
        files.read(path)

    assert psutil.Process().num_fds() == open_files
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(path))


def test_a_socket_is_not_opened(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("h") / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        with pytest.raises(OSError, match=str(path)):
            files.read(path)


def test_the_null_device_is_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "settings").symlink_to(os.devnull)

    assert files.read(tmp_path / "settings") == b""


def test_a_file_may_be_as_large_as_is_said_and_no_larger(tmp_path: Path) -> None:
    (path := tmp_path / "settings").write_bytes(b"12345")

    assert files.read(path, most_bytes=5) == b"12345"
    with pytest.raises(OSError, match="too large") as caught:
        files.read(path, most_bytes=4)
    assert caught.value.errno == errno.EFBIG
