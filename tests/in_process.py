"""`emberd` in this very process: for what takes no process of its own, in milliseconds."""

import io
import os
import pty
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TextIO

import pytest

from emberd.cli import context, main
from tests.serving import clean_environ


@dataclass(frozen=True)
class Done:
    """Its exit code and what it wrote; on a terminal, `out` is all that this showed."""

    code: int
    out: str
    err: str = ""


def run_here(home: Path, *arguments: str, typed: str | None = None, **environ: str) -> Done:
    """Run the command line to its end.

    With `typed`, stdin, stdout and stderr are a terminal, on which that is typed.
    """
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # A command leaves its connections open, because they end with its process.
        warnings.simplefilter("ignore", ResourceWarning)
        wanted = clean_environ(home) | environ
        for name in [*os.environ.keys() - wanted.keys()]:
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["emberd", *arguments])
        patch.setattr(context, "errors_as_json", False)
        if typed is None:
            out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
            code = _run(patch, io.TextIOWrapper(io.BytesIO()), out, err)
            return Done(code, *(_content(stream) for stream in (out, err)))
        with _terminal(typed) as (stdin, stdout, shown):
            code = _run(patch, stdin, stdout, stdout)
        return Done(code, b"".join(shown).decode())


def _run(patch: pytest.MonkeyPatch, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> int:
    for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        patch.setattr(sys, name, stream)
    with pytest.raises(SystemExit) as ended:
        main.main()
    stdout.flush()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _content(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextmanager
def _terminal(typed: str) -> Iterator[tuple[TextIO, TextIO, list[bytes]]]:
    """Yield its input, its output, and what it has shown once it is closed."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # nobody writes any more
            while part := os.read(ours, 4096):
                shown.append(part)

    reader = Thread(target=read, daemon=True)
    reader.start()
    os.write(ours, typed.encode())
    with ExitStack() as streams:
        stdin = streams.enter_context(os.fdopen(os.dup(theirs), "r"))
        stdout = streams.enter_context(os.fdopen(theirs, "w"))
        yield stdin, stdout, shown
        stdout.flush()
    reader.join(5)
    os.close(ours)
