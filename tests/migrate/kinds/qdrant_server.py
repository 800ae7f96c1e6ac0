"""A Qdrant server, or rather the stand-in for one."""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from qdrant_client import QdrantClient

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds import qdrant
from tests.migrate.kinds.base import Rows
from tests.migrate.qdrant_server import KEY


class Subject:
    """A process that serves."""

    name: ClassVar[str] = "qdrant-server"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entry: dict[str, Any] = {"kind": "qdrant", "options": {"collection": qdrant.ALIAS}}
        self._rows: list[tuple[Key, str, Matrix]] = []

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.migrate.qdrant_server"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self.entry["path"] = f"{self.url}?api_key={KEY}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def key(self, number: int) -> Key:
        """Return a number or a UUID."""
        return qdrant.key(number)

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Remember them, and make the store."""
        self._rows = list(rows)
        self.reset()

    def reset(self) -> None:
        """Delete everything, and make it again."""
        forget_backups(self._folder)
        with self.open() as client:
            for each in client.get_collections().collections:
                client.delete_collection(each.name)
            qdrant.make(client, self._rows)

    def session(self) -> qdrant.Session:
        """Open one."""
        return qdrant.Session(self.open)

    def copied(self) -> Rows:
        """Read what an undo left."""
        with self.open() as client:
            return qdrant.undone(client)

    def things(self) -> int:
        """Count collections."""
        with self.open() as client:
            return len(client.get_collections().collections)

    @contextmanager
    def open(self) -> Iterator[QdrantClient]:
        """Open a client."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a key without TLS, on this machine
            client = QdrantClient(url=self.url, api_key=KEY, check_compatibility=False)
        with closing(client):
            yield client


def forget_backups(folder: Path) -> None:
    """Delete what the home beside an engine's folder keeps of earlier migrations."""
    shutil.rmtree(folder.parent / "home" / "state" / "stores", ignore_errors=True)
