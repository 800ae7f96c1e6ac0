"""A program that writes to a cmem store without a pause: adds, changes and deletes memories.

    python -m tests.migrate.writer DATABASE FOLDER

FOLDER has `texts.json`, `old.npy` and `new.npy`, the texts' vectors in two spaces. It takes the
model that fits, as a program does whose server's default moved with the store: the new one once the
store has a stamp. It ends when FOLDER/stop is there, and leaves `done.json`, what it wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tests.migrate import stores

STAMPED = "SELECT count(*) FROM sqlite_schema WHERE name = 'emberd_spaces'"


def main(path: Path, folder: Path) -> None:
    """Write until told to stop."""
    texts = json.loads((folder / "texts.json").read_text())
    spaces = [np.load(folder / "old.npy"), np.load(folder / "new.npy")]
    database = stores.connect(path)
    written: dict[int, int | None] = {}  # key: which text, None when deleted
    turn = 0
    while not (folder / "stop").exists():
        at = turn % len(texts)
        key = 10_000 + at if turn % 3 else 1 + at % 200
        database.execute("BEGIN IMMEDIATE")
        # Asked of the database itself: what the connection remembers of its tables may be older.
        space = spaces[database.execute(STAMPED).get]
        database.execute("DELETE FROM memories WHERE id = ?", (key,))
        database.execute("DELETE FROM vec_memories WHERE rowid = ?", (key,))
        if turn % 7:
            stores.add(database, [key], [texts[at]], space[at : at + 1])
        database.execute("COMMIT")
        written[key] = at if turn % 7 else None
        turn += 1
    (folder / "done.json").write_text(json.dumps({"turns": turn, "written": list(written.items())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
