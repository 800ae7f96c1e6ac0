"""What the service wrote to its log files and systemd's journal: the last lines, and new ones."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from emberd.config.load import Config
from emberd.service import command, systemd

LOG, STDERR_LOG = "emberd.log", "service.stderr.log"  # in the state folder
FOLLOW_S = 0.2


def files(state: Path, config: Config | None) -> list[Path]:
    """Return the log files, stderr's first. `config` is None if it cannot be read."""
    own: Path | None = state / LOG
    if config and config.origins["log.file"] != "default":
        own = Path(config.settings.log.file) if config.settings.log.file else None
    return [file for file in (state / STDERR_LOG, own) if file]


def tail(file: Path, lines: int) -> tuple[bytes, int]:
    """Return the last lines, and the position after them."""
    with file.open("rb") as content:
        return b"".join(deque(content, maxlen=lines)), content.tell()


def journal(lines: int) -> tuple[str, str | None]:
    """Return the last lines of systemd's journal, and what it complains about, if anything.

    Raises:
        ServiceError: `journalctl` cannot be run.
    """
    done = command.run(*systemd.journal(lines=lines))
    return done.stdout, done.stderr or None


@contextmanager
def following_journal(lines: int) -> Iterator[None]:
    """Print the last lines of systemd's journal, and what is added, until the block ends."""
    words = [*systemd.journal(lines=lines), "--follow"]
    try:
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)  # noqa: S603 - our own words
    except OSError:  # `journal` has already raised the error
        yield
        return
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def follow(positions: Mapping[Path, int]) -> Generator[bytes, None, None]:
    """Yield what is added to the files after these positions, until closed."""
    growing = [GrowingFile(file, position) for file, position in positions.items()]
    try:
        while True:
            yield b"".join(file.added() for file in growing)
            time.sleep(FOLLOW_S)
    finally:
        for file in growing:
            file.close()


class GrowingFile:
    """A log file that grows, is rotated, or does not exist yet."""

    def __init__(self, file: Path, position: int) -> None:
        self._file = file
        self._stream: BinaryIO | None = None
        with suppress(FileNotFoundError):
            self._stream = file.open("rb")
            self._stream.seek(position)

    def added(self) -> bytes:
        """Return what was written since the last call, also after a rotation."""
        added = self._stream.read() if self._stream else b""
        with suppress(FileNotFoundError):  # not there yet, or between a rotation's two renames
            new = self._file.stat().st_ino
            if self._stream is None:
                self._stream = self._file.open("rb")
            elif new != os.fstat(self._stream.fileno()).st_ino:
                added += self._stream.read()
                self._stream.close()
                self._stream = self._file.open("rb")
        return added

    def close(self) -> None:
        """Close the file."""
        if self._stream:
            self._stream.close()
