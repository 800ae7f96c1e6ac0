"""A server of Chroma."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import chromadb
from chromadb.config import Settings

from emberd.stores.base import Key
from emberd.stores.chroma.clients import close
from emberd.vectors import Matrix
from tests.migrate.kinds import chroma
from tests.migrate.kinds.base import Rows
from tests.migrate.kinds.qdrant_server import forget_backups
from tests.ports import free_port

START_S = 60.0


class Subject:
    """`chroma run`, on a free port."""

    name: ClassVar[str] = "chroma-server"
    may_raise: ClassVar[Sequence[str]] = ("NotFoundError",)  # between the two renames

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entry: dict[str, Any] = {"kind": "chroma", "options": {"collection": chroma.NAME}}
        self._rows: list[tuple[Key, str, Matrix]] = []

    def __enter__(self) -> Self:
        self.port = free_port()
        program = Path(sys.executable).with_name("chroma")
        command = [str(program), "run", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--path", str(self._folder / "served")]
        with (self._folder / "chroma.log").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        self.entry["path"] = f"http://127.0.0.1:{self.port}"
        until_s = time.monotonic() + START_S
        while True:
            try:
                with self.open():
                    return self
            except Exception:
                if time.monotonic() > until_s or self._process.poll() is not None:
                    self._process.kill()
                    raise
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def key(self, number: int) -> Key:
        """Return a text; its order is not that of the numbers."""
        return f"{'é' if number % 5 == 0 else 'row'}-{number}"

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Remember them, and make the store."""
        self._rows = list(rows)
        self.reset()

    def reset(self) -> None:
        """Delete everything, and make it again."""
        forget_backups(self._folder)
        with self.open() as client:
            for each in client.list_collections():
                client.delete_collection(each.name)
            chroma.make(client, self._rows)

    def session(self) -> chroma.Session:
        """Open one."""
        return chroma.Session(self.open)

    def copied(self) -> Rows:
        """Read what an undo left."""
        with self.open() as client:
            return chroma.undone(client)

    def things(self) -> int:
        """Count collections."""
        with self.open() as client:
            return len(client.list_collections())

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open a client."""
        settings = Settings(anonymized_telemetry=False)
        client: Any = chromadb.HttpClient(host="127.0.0.1", port=self.port, settings=settings)
        try:
            yield client
        finally:
            close(client)
