"""Runs the lines of a page for newcomers as they are written there."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.migrate.stores import TINY
from tests.serving import clean_environ

ROOT = Path(__file__).parents[2]
CONFIG = f"""
default: minilm
models:
  minilm: {{sources: [{{path: {TINY / "bert"}}}], dimensions: 64, max_tokens: 32}}
  bge-small:
    {{sources: [{{path: {TINY / "roberta"}}}], dimensions: 64, max_tokens: 32, pooling: mean}}
"""
"""Two models that pages name, by weights that are quickly loaded."""


def blocks(page: str) -> list[str]:
    """Return the shell blocks of a page in docs/stores."""
    text = (ROOT / "docs" / "stores" / page).read_text()
    return re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)


def environ_of(home: Path) -> dict[str, str]:
    """Return what a shell has that finds `emberd` and what is installed beside it."""
    found = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**clean_environ(home), "PATH": found}


def shell(script: str, environ: dict[str, str], folder: Path = ROOT) -> str:
    """Run lines in a folder as somebody types them, who agrees to whatever is asked."""
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n" * 4)
    with os.fdopen(theirs, "r+b", buffering=0) as terminal:
        done = subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=folder,
            env=environ,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
    os.close(ours)
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said
