"""Runs `locate` in a separate process, because huggingface_hub reads its environment on import."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from emberd.errors import SourceError
from emberd.models.sources import locate
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from tests.forked import start
from tests.serving import clean_environ

WANTED = ("config.json", "tokenizer.json", "*_Pooling/config.json", "model*.safetensors*")


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
        asked, ask = os.pipe()
        told, tell = os.pipe()
        self._ask, self._told = os.fdopen(ask, "w"), os.fdopen(told)
        with (
            os.fdopen(asked, "rb") as stdin,
            os.fdopen(tell, "wb") as stdout,
            Path(os.devnull).open("wb") as nowhere,  # huggingface_hub warns of retries
        ):
            self._child = start(
                [],
                environ={**clean_environ(home), **online, **(environ or {})},
                stdin=stdin,
                stdout=stdout,
                stderr=nowhere,
                entry="tests.models.fetching",
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ask.close()
        self._child.wait(30)
        self._told.close()

    def fetch(self, hub: Path, *sources: Source, first: str | None = None) -> Fetched:
        """Locate a model called `mine`, with the Hub's cache at `hub`."""
        spec = ModelSpec(name="mine", sources=sources, dimensions=8, pooling="mean")
        asked = {"spec": asdict(spec), "hub": str(hub), "files": WANTED, "first": first}
        self._ask.write(json.dumps(asked) + "\n")
        self._ask.flush()
        return Fetched(**json.loads(self._told.readline()))


def main() -> None:
    """Answer every line of stdin, a question of `fetch`, with the fields of a `Fetched`."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    reports: list[list[int]] = []
    try:
        located = locate(
            ModelSpec.from_dict(asked["spec"]),
            hub=Path(asked["hub"]),
            files=asked["files"],
            before=asked["first"] and LockEntry(source=asked["first"], folder="/nowhere"),
            report=lambda done, total: reports.append([done, total]),
        )
        said: dict[str, Any] = {
            "source": str(located.source),
            "folder": str(located.folder),
            "downloaded": located.downloaded,
        }
    except SourceError as error:
        said = {"error": error.message, "hint": error.hint}
    return {**said, "reports": reports, "imported_hub": "huggingface_hub" in sys.modules}


if __name__ == "__main__":
    main()
