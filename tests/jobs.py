"""A server with real stores of real vectors, and jobs in it that are followed to their end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emberd.vectors import Matrix
from tests.faults.troubled import serve_troubled
from tests.migrate import stores
from tests.serving import Server, wait_for

STORES = """
stores:
  notes: {path: notes.db, options: {text: notes.body}}
  letters: {path: letters.db, kind: sqlite-vec, model: new, options: {text: notes.body}}
  mixed: {path: mixed.db, options: {text: notes.body}}
  lost: {path: nowhere/lost.db}
"""
CONFIG = f"""default: old
models:
  old: {{sources: [{{path: {stores.TINY / "bert"}}}], dimensions: 64, pooling: mean}}
  new:
    sources: [{{path: {stores.TINY / "roberta"}}}]
    dimensions: 64
    pooling: mean
    backend: troubled
{STORES}"""
ENDS_S = 90.0


def start(home: Path, rows: int) -> Server:
    """Start a server with two small models and four stores.

    `notes` holds so many rows of the model `old`, the default; `letters` 40, whose users ask for
    `new`; `mixed` 25 of `old` and 15 of `new`; the file of `lost` is not there. `new` and commands
    can be held: see `tests.faults.troubled`.
    """
    server = serve_troubled(home, config=CONFIG)
    try:
        wanted = stores.texts(max(rows, 40))
        old, new = (embedded(server, wanted[:count], name) for name, count in
                    (("old", len(wanted)), ("new", 40)))  # fmt: skip
        make_store(home / "notes.db", wanted[:rows], old[:rows])
        make_store(home / "letters.db", wanted[:40], old[:40])
        make_store(home / "mixed.db", wanted[:40], np.concatenate([old[:25], new[25:]]))
    except BaseException:
        server.stop()
        raise
    return server


def embedded(server: Server, texts: list[str], model: str) -> Matrix:
    """Return the vectors of texts, `(N, 64)`."""
    answers = [
        server.embed(*texts[at : at + 500], model=model)["embeddings"]
        for at in range(0, len(texts), 500)
    ]
    return np.array([row for answer in answers for row in answer], np.float32)


def make_store(path: Path, texts: list[str], vectors: Matrix) -> None:
    """Make a database as many programs do: texts in `notes`, their vectors in `vec_notes`."""
    database = stores.connect(path)
    database.execute(
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);"
        f"CREATE VIRTUAL TABLE vec_notes USING vec0(embedding float[{vectors.shape[1]}])"
    )
    with database:
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), 1):
            database.execute("INSERT INTO notes VALUES (?, ?)", (number, text))
            database.execute(
                "INSERT INTO vec_notes(rowid, embedding) VALUES (?, ?)", (number, vector.tobytes())
            )
    database.close()


def begin(server: Server, kind: str, **about: str) -> dict[str, Any]:
    """Start a job; return its row."""
    answer = server.http.post("/jobs", json={"kind": kind, **about})
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()
    return row


def job(server: Server, wanted: str) -> dict[str, Any]:
    """Return the row of a job as it is now."""
    rows = server.http.get("/jobs").json()["jobs"]
    return next(row for row in rows if row["id"] == wanted)


def until(server: Server, wanted: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the row of a job once something holds of it."""

    def look() -> dict[str, Any] | None:
        row = job(server, wanted)
        return row if holds(row) else None

    return wait_for(look, within_s=ENDS_S)


def ended(server: Server, wanted: str) -> dict[str, Any]:
    """Return the row of a job once it has ended."""
    return until(server, wanted, lambda row: row["state"] != "running")


def run(server: Server, kind: str, **about: str) -> dict[str, Any]:
    """Start a job; return its row once it is done."""
    row = ended(server, begin(server, kind, **about)["id"])
    assert row["state"] == "done", row
    return row
