"""Real stores of real vectors: generated texts, embedded by MiniLM, in sqlite-vec databases."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import sqlite_vec

from emberd.bench.texts import Texts
from emberd.config.load import load_config
from emberd.pool.manager import Pool
from emberd.pool.request import EmbedRequest
from emberd.vectors import Matrix
from tests import compiled
from tests.serving import clean_environ

WORDS = 9
TINY = Path(__file__).parents[1] / "reference" / "tiny"
MODELS = f"""models:
  old: {{sources: [{{path: {TINY / "bert"}}}], dimensions: 64, pooling: mean}}
  new: {{sources: [{{path: {TINY / "roberta"}}}], dimensions: 64, pooling: mean}}
"""
CMEM_CONFIG = {"server": {"port": 8767}, "embedding": {"model": "old", "dimensions": 384}, "é": [1]}


def texts(count: int) -> list[str]:
    """Return short passages, no two alike, the same ones every time."""
    return Texts().take(count, WORDS)


def embed(home: Path, wanted: Sequence[str], model: str) -> Matrix:
    """Embed texts with a pool in this process, `(N, D)`."""
    compiled.lend(home)

    async def ask() -> Matrix:
        async with Pool(load_config(environ=clean_environ(home))) as pool:
            answers = [
                await pool.embed(
                    EmbedRequest(texts=wanted[at : at + 2048], model=model, encoding="raw")
                )
                for at in range(0, len(wanted), 2048)
            ]
        raw = b"".join(fragment for answer in answers for fragment in answer.fragments)
        return np.frombuffer(raw, "<f4").reshape(len(wanted), -1)

    vectors = asyncio.run(ask())
    compiled.keep(home)
    return vectors


def connect(path: Path, *, journal: str | None = None) -> apsw.Connection:
    """Open a database as a program with sqlite-vec would, one that sets a journal mode or not."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(20_000)
    if journal:
        connection.pragma("journal_mode", journal)
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)
    return connection


def make_cmem(
    folder: Path, wanted: Sequence[str], vectors: Matrix, *, journal: str = "wal"
) -> Path:
    """Make a folder as cmem keeps it, and a table for `tests.migrate.writer`; return the database.

    `journal` is SQLite's journal mode.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CMEM_CONFIG, indent=2, ensure_ascii=False))
    path = folder / "memories.db"
    database = connect(path)
    database.pragma("journal_mode", journal)
    database.execute(
        "CREATE TABLE turns(turn INTEGER PRIMARY KEY);"
        "CREATE TABLE memories(id INTEGER PRIMARY KEY, content TEXT, created TEXT);"
        f"CREATE VIRTUAL TABLE vec_memories USING vec0(embedding float[{vectors.shape[1]}])"
    )
    with database:
        add(database, range(1, len(wanted) + 1), wanted, vectors)
    database.close()
    return path


def add(
    database: apsw.Connection, ids: Sequence[int], wanted: Sequence[str], vectors: Matrix
) -> None:
    """Write rows as cmem does."""
    for number, text, vector in zip(ids, wanted, vectors, strict=True):
        database.execute("INSERT INTO memories(id, content) VALUES (?, ?)", (number, text))
        database.execute(
            "INSERT INTO vec_memories(rowid, embedding) VALUES (?, ?)", (number, vector.tobytes())
        )


def ask(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a store that must be complete."""
    database = connect(path)
    assert database.execute("PRAGMA integrity_check").get == "ok"
    found = list(database.execute(sql))
    database.close()
    return found


def read(path: Path, table: str = "vec_memories") -> tuple[list[int], Matrix]:
    """Return keys and vectors `(N, D)` of a store that must be complete."""
    found = sorted(ask(path, f"SELECT rowid, embedding FROM {table}"))  # noqa: S608
    return [key for key, _ in found], np.stack([np.frombuffer(raw, "<f4") for _, raw in found])
