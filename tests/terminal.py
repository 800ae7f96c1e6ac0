"""`emberd` as a person runs it: on a terminal."""

import os
import pty
import subprocess
import termios
from pathlib import Path

from tests.forked import start
from tests.serving import clean_environ


def run_on_a_terminal(
    home: Path, *arguments: str, width: int = 80, typed: bytes = b"", stdout: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run `emberd` with stdin, stdout (unless a file is given for it) and stderr on a terminal.

    Returns:
        Its exit code, and as `stdout` what the terminal showed.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, width))
    with (
        os.fdopen(theirs, "r+b", buffering=0) as terminal,
        stdout.open("wb") if stdout else os.fdopen(os.dup(theirs), "wb") as output,
    ):
        process = start(
            arguments,
            environ=clean_environ(home) | {"TERM": "xterm"},
            stdin=terminal,
            stdout=output,
            stderr=terminal,
        )
    os.write(ours, typed)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # nobody writes any more
        pass
    os.close(ours)
    return subprocess.CompletedProcess(["emberd", *arguments], process.wait(60), shown)
