"""The tokenizer is read once the backend no longer needs Python: reading holds the GIL."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from emberd import __version__
from emberd.backends.base import LoadRequest
from emberd.backends.openvino.backend import OpenVINOBackend, OpenVINOEncoder
from emberd.worker import loading, wire
from tests.folders import Folder
from tests.worker.test_folder import entry

ENTRY_POINTS = """[emberd.backends]
says = tests.worker.test_python_is_free:Says
silent = tests.worker.test_python_is_free:Silent
"""
ASIDE = "tokenizer.away"


class Silent(OpenVINOBackend):
    """Puts the tokenizer back when it has loaded."""

    def load(self, request: LoadRequest) -> OpenVINOEncoder:
        """See `backends.base.Backend.load`."""
        encoder = super().load(replace(request, python_is_free=lambda: None))
        (request.folder / ASIDE).rename(request.folder / "tokenizer.json")
        return encoder


class Says(Silent):
    """Says at the end of its load that Python is free."""

    def load(self, request: LoadRequest) -> OpenVINOEncoder:
        """See `backends.base.Backend.load`."""
        encoder = super().load(request)
        request.python_is_free()
        return encoder


@pytest.mark.parametrize("backend", ["says", "silent"])
def test_the_tokenizer_is_read_when_python_is_free_or_the_backend_has_loaded(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "plugins" / "says-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: says\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(info.parent)
    folder = Folder().write(tmp_path / "model")

    def take_away(progress: wire.Progress) -> None:
        if progress.phase == "load":
            (folder / "tokenizer.json").rename(folder / ASIDE)

    start = wire.Start(
        version=__version__, spec=asdict(entry(folder, backend=backend)), hub="/nowhere",
        cache=str(tmp_path / "cache"), lock=None,
    )  # fmt: skip
    loaded = loading.load(start, loading.Phases(0, 0), take_away)
    assert loaded.tokenizer.encode(["a text"])[0].ids
