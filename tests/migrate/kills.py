"""Kill a migration at any moment, look at the store, and let a second run finish it.

    python -m tests.migrate.kills --kills 100 --growing 20 --seed 7

Kills are SIGKILL from this process: `--kills` of them uniform over the time that an undisturbed run
took, `--growing` more while the store's write-ahead log grows or what follows it is written. Every
time the store has to open, pass SQLite's integrity check, and be wholly old or wholly new; then a
second run has to complete it. Real MiniLM embeds.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from emberd.vectors import Matrix
from tests.migrate import stores
from tests.serving import clean_environ

ROWS = 500


@dataclass
class Kills:
    """One store, copied for every kill. `seen` counts what was found after them."""

    folder: Path
    rows: int = ROWS
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.texts = stores.texts(self.rows)
        self.old = stores.embed(self.home, self.texts, "minilm")
        self.new = stores.embed(self.home, self.texts, "minilm-f32")
        stores.make_cmem(self.folder / "untouched", self.texts, self.old)
        self.store = self.folder / "store"
        self.database = self.store / "memories.db"
        self._fresh()
        began_s = time.monotonic()
        process = self._start()
        growing_s = self._wait_until_it_grows(process)
        self._answer(process)
        self.run_s = time.monotonic() - began_s
        self.end_s = time.monotonic() - (growing_s or time.monotonic())
        assert self.look() == "new"

    def _fresh(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.copytree(self.folder / "untouched", self.store)

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["migrate", "run", str(self.store), "--to", "minilm-f32", "--yes", "--json"]
        command += ["--batch", "50"]
        return subprocess.Popen(
            [sys.executable, "-m", "emberd.cli.main", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environ(self.home),
        )

    def _wait_until_it_grows(self, process: subprocess.Popen[bytes]) -> float | None:
        log = self.database.with_name("memories.db-wal")
        while process.poll() is None:
            if log.exists() and log.stat().st_size:
                return time.monotonic()
            time.sleep(0.0005)
        return None

    def kill_after(self, seconds: float, *, growing: bool) -> bool:
        """Kill one run so long after its start, or after the log began to grow; finish it.

        Returns False for a run that was through by then, and takes its time as the measured one.
        """
        self._fresh()
        began_s = since_s = time.monotonic()
        process = self._start()
        if growing:
            since_s = self._wait_until_it_grows(process) or since_s
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        killed = process.wait() == -signal.SIGKILL
        now_s = time.monotonic()
        _, errors = process.communicate()
        assert killed or process.returncode == 0, errors.decode()
        found = self.look()
        self.seen[f"{'killed' if killed else 'through'}, {found}"] += 1
        if not killed:
            assert found == "new"
            if growing:
                self.end_s = now_s - since_s
            else:
                self.run_s = now_s - began_s
            return False
        staged = self.staged()
        answer = self._answer(self._start())
        assert self.look() == "new"
        if answer["status"] == "moved":
            assert answer["embedded"] == self.rows - staged  # nothing twice
            self.seen["went on"] += staged > 0
        else:
            assert found == "new"
            self.seen["finished what followed"] += answer["recovered"] is not None
        config = json.loads((self.store / "config.json").read_text())
        assert config == stores.CMEM_CONFIG | {
            "embedding": {"model": "minilm-f32", "dimensions": 384}
        }
        left = sorted(path.name for path in self.store.glob("memories.db.emberd/*"))
        assert left == ["backup-0001.db", "backup-0001.json", "lock"], left
        _, backed_up = stores.read(self.store / "memories.db.emberd" / "backup-0001.db")
        assert np.array_equal(backed_up, self.old)
        return True

    def staged(self) -> int:
        """Return how many rows the stopped run left ready."""
        sidecar = self.store / "memories.db.emberd" / "staged.db"
        if not sidecar.exists():
            return 0
        database = stores.connect(sidecar)
        try:
            return int(database.execute("SELECT count(*) FROM staged").get)
        except apsw.SQLError:  # killed before the table was made
            return 0
        finally:
            database.close()

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
        answer: dict[str, Any] = json.loads(output)
        return answer

    def look(self) -> str:
        """Return `old` or `new`; anything else is a failure."""
        keys, vectors = stores.read(self.database)
        assert keys == list(range(1, self.rows + 1))
        config = json.loads((self.store / "config.json").read_text())
        assert config["embedding"]["model"] in ("old", "minilm-f32")
        if np.array_equal(vectors, self.old):
            assert config == stores.CMEM_CONFIG
            return "old"
        assert _lowest(vectors, self.new) > 0.9999, "neither old nor new"
        return "new"


def _lowest(a: Matrix, b: Matrix) -> float:
    return float(stores.cosines(a, b).min())


def run(
    kills: int,
    growing: int,
    seed: int,
    *,
    rows: int = ROWS,
    say: Callable[[str], None] | None = None,
) -> Kills:
    """Do it all; raises AssertionError at the first store that is not as it has to be."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="emberd-kills-") as folder:
        subject = Kills(Path(folder), rows)
        if say:
            say(f"a run takes {subject.run_s:.2f} s, its end {subject.end_s:.2f} s")
        for count in range(1, kills + growing + 1):
            while True:  # a run that ends before it is killed was faster than the measured one
                growing_now = count > kills
                most_s = subject.end_s if growing_now else subject.run_s
                if subject.kill_after(chance.uniform(0, most_s), growing=growing_now):
                    break
            if say and count % 10 == 0:
                say(f"{count} of {kills + growing}: {dict(subject.seen)}")
        return subject


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--growing", type=int, default=20)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    asked = parser.parse_args()
    say = partial(print, flush=True)
    say(f"seed {asked.seed}, {asked.rows} rows")
    done = run(asked.kills, asked.growing, asked.seed, rows=asked.rows, say=say)
    say(f"every store was whole, every second run completed: {dict(done.seen)}")
