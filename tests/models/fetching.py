"""Runs `locate` in a separate process, because huggingface_hub reads its environment on import."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from emberd.registry.spec import ModelSpec, Source
from tests.serving import clean_environ

WANTED = ("config.json", "tokenizer.json", "*_Pooling/config.json", "model*.safetensors*")
CHILD = """
import json, sys
from pathlib import Path
from emberd.errors import SourceError
from emberd.spaces.lock import LockEntry
from emberd.models.sources import locate
from emberd.registry.spec import ModelSpec

for line in sys.stdin:
    asked = json.loads(line)
    reports = []
    try:
        located = locate(
            ModelSpec.from_dict(asked["spec"]),
            hub=Path(asked["hub"]),
            files=asked["files"],
            before=asked["first"] and LockEntry(source=asked["first"], folder="/nowhere"),
            report=lambda done, total: reports.append([done, total]),
        )
        said = {
            "source": str(located.source),
            "folder": str(located.folder),
            "downloaded": located.downloaded,
        }
    except SourceError as error:
        said = {"error": error.message, "hint": error.hint}
    paid = "huggingface_hub" in sys.modules
    print(json.dumps({**said, "reports": reports, "imported_hub": paid}), flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The outcome: a folder, or an error."""

    source: str = ""
    folder: str = ""
    downloaded: bool | None = None
    error: str = ""
    hint: str = ""
    reports: list[list[int]] = field(default_factory=list)
    imported_hub: bool


class Fetcher:
    """A process that locates models, asking the Hub at `endpoint`; a context manager."""

    def __init__(self, home: Path, endpoint: str, environ: Mapping[str, str] | None = None) -> None:
        online = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # huggingface_hub warns of retries
            env={**clean_environ(home), **online, **(environ or {})},
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate(timeout=30)

    def fetch(self, hub: Path, *sources: Source, first: str | None = None) -> Fetched:
        """Locate a model called `mine`, with the Hub's cache at `hub`."""
        spec = ModelSpec(name="mine", sources=sources, dimensions=8, pooling="mean")
        asked = {"spec": asdict(spec), "hub": str(hub), "files": WANTED, "first": first}
        assert self._child.stdin and self._child.stdout  # both are pipes
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        return Fetched(**json.loads(self._child.stdout.readline()))
