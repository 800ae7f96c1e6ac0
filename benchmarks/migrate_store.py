"""What migrating a large store costs beyond the embedding, and how accurate the estimates are.

    python benchmarks/migrate_store.py --rows 100000 --out benchmarks/results/migrate_store.json

A cmem store of generated texts (eight words) with random vectors is moved to a real model. The
embedding alone is timed with a tenth of the texts right before and right after the run, through
the same pool, in the same requests. `locked_s` is how long writers waited for the swap, and
`most_disk_bytes` is the most that lay beside the store, sampled ten times a second. Wall-clock
times need an otherwise idle machine; processor times do not.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import apsw
import machine
import numpy as np
import psutil
import sqlite_vec

from emberd.bench.texts import Texts
from emberd.config.load import load_config
from emberd.config.paths import Homes
from emberd.config.settings import CacheSettings
from emberd.migrate.embedding import BATCH, PoolEmbedder, Target, embed, find_target
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.plan import plan as plan_migration
from emberd.migrate.turns import IN_FLIGHT

WORDS = 8
DIMENSIONS = 384


def make_store(folder: Path, texts: list[str]) -> None:
    """Make a folder like cmem's, with random vectors of unit length."""
    database = apsw.Connection(str(folder / "memories.db"))
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    database.pragma("journal_mode", "wal")
    database.execute(
        "CREATE TABLE memories(id INTEGER PRIMARY KEY, content TEXT NOT NULL);"
        f"CREATE VIRTUAL TABLE vec_memories USING vec0(embedding float[{DIMENSIONS}])"
    )
    chance = np.random.default_rng(1)
    with database:
        for key, text in enumerate(texts, start=1):
            vector = chance.standard_normal(DIMENSIONS).astype("<f4")
            vector /= np.linalg.norm(vector)
            database.execute("INSERT INTO memories VALUES (?, ?)", (key, text))
            database.execute(
                "INSERT INTO vec_memories(rowid, embedding) VALUES (?, ?)", (key, vector.tobytes())
            )
    database.close()


def embed_alone(embedder: PoolEmbedder, texts: list[str], target: Target) -> tuple[float, float]:
    """Embed as a migration does; return seconds and processor seconds per text."""
    began_s, began_cpu_s = time.perf_counter(), cpu_s()
    for at in range(0, len(texts), IN_FLIGHT * BATCH):
        embed(embedder, texts[at : at + IN_FLIGHT * BATCH], target)
    return (time.perf_counter() - began_s) / len(texts), (cpu_s() - began_cpu_s) / len(texts)


def cpu_s() -> float:
    """Return the processor time of this process and its workers; other load does not disturb it."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


class DiskWatch:
    """The largest size of a folder while it is watched; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over = Event()
        self._thread = Thread(target=self._watch)
        self.most_bytes = 0

    def __enter__(self) -> "DiskWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.most_bytes = max(self.most_bytes, disk_bytes(self._folder))


def disk_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; some vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def measure(rows: int, model: str, folder: Path) -> dict[str, object]:
    """Migrate one store; return the estimates and the measurements."""
    base = load_config()
    homes = Homes(folder / "config.yaml", folder / "state", folder / "cache", base.homes.hub)
    settings = replace(base.settings, cache=CacheSettings())  # the same texts come several times
    config = replace(base, homes=homes, settings=settings)
    store = folder / "store"
    store.mkdir()
    texts = Texts().take(rows, WORDS)
    make_store(store, texts)
    before_bytes = disk_bytes(store)
    with PoolEmbedder(config) as embedder:
        target = find_target(config, embedder, model)
        named = find(config, str(store))
        tenth = texts[:: max(1, rows // max(rows // 10, 1))]
        plan = plan_migration(named, target, embedder, homes.state)
        before_s, before_cpu_s = embed_alone(embedder, tenth, target)
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        with DiskWatch(store) as disk:
            moved = migrate_all([named], target, embedder, homes.state)[named.name]
        whole_s = time.perf_counter() - began_s
        whole_cpu_s = cpu_s() - began_cpu_s
        after_s, after_cpu_s = embed_alone(embedder, tenth, target)
    embedding_cpu_s = rows * (before_cpu_s + after_cpu_s) / 2
    embedding_s = rows * (before_s + after_s) / 2
    return {
        "machine": machine.facts(),
        "rows": rows,
        "model": model,
        "dimensions": target.dimensions,
        "told": {
            "embedding_s": round(plan.seconds, 1),
            "locked_s": round(plan.cost.locked_s, 2),
            "disk_bytes": plan.disk_bytes,
        },
        "measured": {
            "whole_s": round(whole_s, 1),
            "embedding_alone_s": round(embedding_s, 1),
            "embedding_alone_before_s": round(rows * before_s, 1),
            "embedding_alone_after_s": round(rows * after_s, 1),
            "beyond_embedding": round(whole_s / embedding_s - 1, 4),
            "whole_cpu_s": round(whole_cpu_s, 1),
            "embedding_alone_cpu_s": round(embedding_cpu_s, 1),
            "beyond_embedding_cpu": round(whole_cpu_s / embedding_cpu_s - 1, 4),
            "staging_s": moved.embed_s,
            "besides_staging_s": round(whole_s - moved.embed_s, 2),
            "locked_s": moved.locked_s,
            "most_disk_bytes": disk.most_bytes - before_bytes,
        },
        "lowest_cosine": moved.lowest_cosine,
        "store_bytes": before_bytes,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="minilm-f32")
    parser.add_argument("--folder", type=Path, help="where to make the store")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="emberd-bench-", dir=asked.folder))
    try:
        result = json.dumps(measure(asked.rows, asked.model, folder), indent=1) + "\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(result)
    if asked.out:
        asked.out.write_text(result)


if __name__ == "__main__":
    main()
