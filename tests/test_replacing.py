"""A file is replaced completely or not at all, and nothing is left beside it."""

import os
import stat
from pathlib import Path

import pytest

from emberd.replacing import replace_file, replacing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (file := tmp_path / "file").write_text("old")
    return file


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_file_is_made_or_replaced(tmp_path: Path, file: Path) -> None:
    replace_file(file, b"new")
    replace_file(tmp_path / "other", b"new")

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "file": "new", "other": "new",
    }  # fmt: skip


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ValueError, match="closed"), replacing(file) as new:
        new.close()

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def test_readers_see_the_old_file_until_the_new_one_is_whole(file: Path) -> None:
    with replacing(file) as new:
        new.write(b"new")
        new.flush()
        assert file.read_text() == "old"

    assert file.read_text() == "new"


@pytest.mark.parametrize(("keep", "mode"), [(False, 0o600), (True, 0o640)])
def test_the_mode_is_a_new_one_or_that_of_the_old_file(file: Path, keep: bool, mode: int) -> None:
    file.chmod(0o640)

    replace_file(file, b"new", keep=keep)

    assert mode_of(file) == mode


def test_a_new_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "new", b"", mode=0o666, keep=True)
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "new") == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(file: Path) -> None:
    os.chown(file, 65534, 65534)

    replace_file(file, b"new", keep=True)

    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path, file: Path) -> None:
    (link := tmp_path / "link").symlink_to(file)

    replace_file(link, b"new")

    assert not link.is_symlink()
    assert file.read_text() == "old"


def test_a_temporary_of_a_killed_run_is_overwritten(tmp_path: Path, file: Path) -> None:
    (left := tmp_path / "left").write_text("more than what is written now")

    replace_file(file, b"new", temporary=left)

    assert file.read_text() == "new"
    assert not left.exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "no" / "file", b"")
