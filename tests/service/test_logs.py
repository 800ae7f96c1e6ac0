"""The last lines of a log, and new ones, even if the file is rotated or created later."""

from contextlib import closing
from pathlib import Path

import pytest

from emberd.config.load import load_config
from emberd.service.logs import GrowingFile, files, tail


def test_the_last_lines_end_where_following_begins(tmp_path: Path) -> None:
    (log := tmp_path / "log").write_text("one\ntwo\nthree\n")

    content, position = tail(log, 2)
    with log.open("a") as more:
        more.write("four\n")

    assert content == b"two\nthree\n"
    with closing(GrowingFile(log, position)) as growing:
        assert growing.added() == b"four\n"
    assert tail(log, 0)[0] == b""


def test_a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_beginning(
    tmp_path: Path,
) -> None:
    (log := tmp_path / "log").write_text("old\n")
    with closing(GrowingFile(log, 0)) as growing:
        assert growing.added() == b"old\n"

        with log.open("a") as more:
            more.write("last\n")
        log.rename(tmp_path / "log.1")
        assert growing.added() == b"last\n"
        log.write_text("new\n")

        assert growing.added() + growing.added() == b"new\n"


def test_a_file_that_is_made_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    with closing(GrowingFile(tmp_path / "log", 0)) as growing:
        assert growing.added() == b""

        (tmp_path / "log").write_text("first\n")

        assert growing.added() + growing.added() == b"first\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["service.stderr.log", "emberd.log"]),
        ("log: {file: /var/log/mine.log}\n", ["service.stderr.log", "mine.log"]),
    ],
)
def test_which_files_a_service_writes(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(environ={"EMBERD_HOME": str(tmp_path)})

    assert [file.name for file in files(config.homes.state, config)] == names
    assert [file.name for file in files(config.homes.state, None)][1] == "emberd.log"
