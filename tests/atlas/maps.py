"""A home with stores to map: of one model, of two, small numbers, and some that cannot be read."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from emberd.vectors import Matrix, quantize, ranges, step_for
from tests.migrate import stores

ROWS = 1200
OF_NEW = 400  # rows of the mixed store, the last ones
LARGE = 100_000
CLUSTERS = 24
HOSTILE = {  # by row
    0: "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">",
    1: "שלום עולם، مرحبا بالعالم",
    2: "A family 👩‍👩‍👧‍👦 under a 🏳️‍🌈, and a very long word: " + "a" * 400,
}


def texts() -> list[str]:
    """Return the texts of every store here."""
    found = stores.texts(ROWS)
    for row, text in HOSTILE.items():
        found[row] = text
    return found


def make_home(home: Path) -> dict[str, Matrix]:
    """Write a configuration and its stores; return the vectors by the models `old` and `new`."""
    home.mkdir(parents=True, exist_ok=True)
    wanted = texts()
    (home / "config.yaml").write_text(
        f"{stores.MODELS}default: old\nstores:\n"
        "  notes: {path: notes, kind: cmem}\n"
        "  mixed: {path: mixed, kind: cmem}\n"
        "  int8: {path: small.db, options: {table: v_int8, text: t.body}}\n"
        "  bits: {path: small.db, options: {table: v_bit, text: t.body}}\n"
        "  odd: {path: odd, kind: cmem}\n"
        "  empty: {path: empty, kind: cmem}\n"
        "  other: {path: other, kind: cmem}\n"
        "  gone: {path: gone.db}\n"
    )
    with ThreadPoolExecutor(1) as beside:  # Playwright may have an event loop in this thread
        made = {
            model: beside.submit(stores.embed, home, wanted, model).result()
            for model in ("old", "new")
        }
    mixed = np.concatenate([made["old"][:-OF_NEW], made["new"][-OF_NEW:]])
    stores.make_cmem(home / "notes", wanted, made["old"])
    stores.make_cmem(home / "mixed", wanted, mixed)
    stores.make_cmem(home / "empty", [], made["old"][:0])
    stores.make_cmem(home / "other", wanted[:50], np.ones((50, 7), np.float32))
    odd = made["old"][:20].copy()
    odd[3], odd[5, 0] = 0, np.nan
    stores.make_cmem(home / "odd", wanted[:20], odd)
    _make_small(home / "small.db", wanted, made["old"])
    return made


def make_large(folder: Path) -> None:
    """Make a store of `LARGE` drawn rows of 384 dimensions, in clusters."""
    chance = np.random.default_rng(1)
    centres = chance.normal(size=(CLUSTERS, 384))
    of = chance.integers(0, CLUSTERS, LARGE)
    vectors = centres[of] + 1.2 * chance.normal(size=(LARGE, 384))
    wanted = [f"row {row} of cluster {cluster}" for row, cluster in enumerate(of)]
    stores.make_cmem(folder, wanted, vectors.astype(np.float32))


def _make_small(path: Path, wanted: list[str], vectors: Matrix) -> None:
    database = stores.connect(path)
    size = vectors.shape[1]
    limits = ranges(step_for(float(np.abs(vectors).max())), size)
    small = quantize(vectors, "int8", limits), quantize(vectors, "ubinary")
    database.execute(
        "CREATE TABLE t(body TEXT);"
        f"CREATE VIRTUAL TABLE v_int8 USING vec0(e int8[{size}]);"
        f"CREATE VIRTUAL TABLE v_bit USING vec0(e bit[{size}])"
    )
    with database:
        for row, text in enumerate(wanted):
            database.execute("INSERT INTO t(rowid, body) VALUES (?, ?)", (row + 1, text))
            for table, make, of in zip(
                ("v_int8", "v_bit"), ("vec_int8(?)", "vec_bit(?)"), small, strict=True
            ):
                database.execute(
                    f"INSERT INTO {table}(rowid, e) VALUES (?, {make})",  # noqa: S608
                    (row + 1, of[row].tobytes()),
                )
    database.close()
