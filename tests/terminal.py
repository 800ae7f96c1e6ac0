"""`emberd` as a person runs it: on a terminal."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

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
    output = os.open(stdout, os.O_WRONLY | os.O_CREAT) if stdout else os.dup(theirs)
    process = subprocess.Popen(
        [sys.executable, "-m", "emberd", *arguments],
        stdin=theirs,
        stdout=output,
        stderr=theirs,
        env=clean_environ(home) | {"TERM": "xterm"},
    )
    os.close(theirs)
    os.close(output)
    os.write(ours, typed)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # nobody writes any more
        pass
    os.close(ours)
    return subprocess.CompletedProcess(process.args, process.wait(60), shown)
