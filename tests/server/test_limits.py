"""How many connections there may be, and how often the log says that there are too many."""

import asyncio
import errno
import logging
import resource

import pytest

from emberd.server import limits


@pytest.mark.parametrize(
    ("files", "connections"), [(256, 64), (1024, 384), (8192, 8192 - 512 - 128)]
)
def test_some_files_are_left_for_other_things(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (files, files))

    assert limits.most_connections() == connections


def test_failures_to_accept_are_one_line_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    handler = limits.EventLoopErrorLog(logging.getLogger("test"))
    full = OSError(errno.EMFILE, "Too many open files")
    loop = asyncio.new_event_loop()
    for _ in range(1000):
        handler(loop, {"message": "out of files", "exception": full})
    for _ in range(2):
        handler(loop, {"message": "another error", "exception": ValueError()})
    loop.close()

    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["out of files (OSError)", *["another error (ValueError)"] * 2]
