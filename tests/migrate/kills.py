"""Kill a migration at any moment, look at the store, and let a second run finish it.

    python -m tests.migrate.kills --kills 100 --growing 20 --seed 7
    python -m tests.migrate.kills --kills 100 --growing 20 --seed 7 --writer
    python -m tests.migrate.kills --kills 100 --growing 20 --seed 7 --full-disk

Kills are SIGKILL from this process: `--kills` of them uniform over the time that an undisturbed run
took, `--growing` more from when the swap begins to write to what follows it. Every time the store
has to open, pass SQLite's integrity check, and be wholly old or wholly new; then a second run has
to complete it. With `--writer` a program adds, changes and deletes rows all the while, and all it
wrote has to be there in the end. With `--full-disk` nothing is left of the store's disk from that
moment on, and the kill comes somewhat later, unless the run has given up by then. Real MiniLM
embeds.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from emberd.vectors import Matrix
from tests import disk
from tests.migrate import stores
from tests.serving import clean_environ, wait_for

ROWS = 500
WRITTEN = 300  # texts that only the writer has
DISK_MIB = 40
ROW = "SELECT m.id, m.content, v.embedding FROM vec_memories v JOIN memories m ON m.id = v.rowid"


@dataclass
class Kills:
    """One store, copied for every kill. `seen` counts what was found after them."""

    folder: Path
    rows: int = ROWS
    writer: bool = False
    full_disk: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        texts = stores.texts(self.rows + WRITTEN)
        self.place = {text: at for at, text in enumerate(texts)}
        self.old = stores.embed(self.home, texts, "minilm")
        self.new = stores.embed(self.home, texts, "minilm-f32")
        stores.make_cmem(self.folder / "untouched", texts[: self.rows], self.old[: self.rows])
        self.written = self.folder / "written"
        self.written.mkdir()
        (self.written / "texts.json").write_text(json.dumps(texts[self.rows :]))
        np.save(self.written / "old.npy", self.old[self.rows :])
        np.save(self.written / "new.npy", self.new[self.rows :])
        self.disk = self.folder / "disk"
        self.store = self.disk / "store"
        self.database = self.store / "memories.db"
        with self._fresh():
            began_s = time.monotonic()
            process = self._start()
            swap_s = self._wait_for_swap(process)
            self._answer(process)
            self.run_s = time.monotonic() - began_s
            self.end_s = time.monotonic() - (swap_s or time.monotonic())
            assert self.look() == "new"

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        """Have the store as it was before all, and perhaps somebody who writes to it."""
        with ExitStack() as stack:
            self.disk.mkdir(exist_ok=True)
            if self.full_disk:
                stack.enter_context(disk.mounted(self.disk, DISK_MIB))
            else:
                shutil.rmtree(self.store, ignore_errors=True)
            shutil.copytree(self.folder / "untouched", self.store)
            if self.writer:
                stack.enter_context(self._written_to())
            yield

    @contextmanager
    def _written_to(self) -> Iterator[None]:
        for name in ("stop", "done.json"):
            (self.written / name).unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.migrate.writer"]
        writer = subprocess.Popen([*command, str(self.database), str(self.written)])
        try:
            wait_for(lambda: self._rows(self.database)[0][-1] >= 10_000)
            yield
        finally:
            (self.written / "stop").touch()
            ended = writer.wait(60)
        assert ended == 0
        self._compare_with_what_was_written()

    def _compare_with_what_was_written(self) -> None:
        expected: dict[int, int] = {at + 1: at for at in range(self.rows)}
        done = json.loads((self.written / "done.json").read_text())
        for key, at in done["written"]:
            expected.pop(key, None)
            if at is not None:
                expected[key] = self.rows + at
        keys, places, vectors = self._rows(self.database)
        assert dict(zip(keys, places, strict=True)) == expected
        assert _lowest(vectors, self.new[places]) > 0.9999
        self.seen["rows written meanwhile"] += len(done["written"])

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["migrate", "run", str(self.store), "--to", "minilm-f32", "--yes", "--json"]
        command += ["--batch", "50"]
        return subprocess.Popen(
            [sys.executable, "-m", "emberd.cli.main", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environ(self.home),
        )

    def _wait_for_swap(self, process: subprocess.Popen[bytes]) -> float | None:
        """Return when it began to write to the store; with a writer, when its backup was begun."""
        log = self.database.with_name("memories.db-wal")
        backup = self.store / "memories.db.emberd" / "backup-0001.db"
        while process.poll() is None:
            if backup.exists() or (not self.writer and log.exists() and log.stat().st_size):
                return time.monotonic()
            time.sleep(0.0005)
        return None

    def kill_after(self, seconds: float, later_s: float, *, swapping: bool) -> bool:
        """Kill one run so long after its start, or after its swap began; finish it.

        With a full disk, it is full then, and the kill comes `later_s` after it. Returns False for
        a run that was through by then, and takes its time as the measured one.
        """
        with self._fresh():
            began_s = since_s = time.monotonic()
            process = self._start()
            if swapping:
                since_s = self._wait_for_swap(process) or since_s
            hog = None
            if _runs_on(process, seconds) and self.full_disk:
                hog = disk.fill(self.disk)
                _runs_on(process, later_s)
            process.kill()  # nothing to a process that has ended
            _, errors = process.communicate()
            now_s = time.monotonic()
            if hog:
                hog.unlink()
            how = self._how(process.returncode, errors.decode(), hog)
            found = self.look()
            self.seen[f"{how}, {found}"] += 1
            if how == "through":
                assert found == "new"
                if not hog and swapping:
                    self.end_s = now_s - since_s
                elif not hog:
                    self.run_s = now_s - began_s
                return hog is not None
            self._finish(found)
            return True

    def _how(self, code: int, errors: str, hog: Path | None) -> str:
        if code == -signal.SIGKILL:
            return "killed"
        if code:
            assert hog, errors
            assert "Traceback" not in errors, errors
            assert "full" in errors or "cannot be" in errors or "left" in errors, errors
            return "gave up"
        return "through"

    def _finish(self, found: str) -> None:
        staged = self.staged()
        answer = self._answer(self._start())
        assert self.look() == "new"
        if answer["status"] == "moved":
            if not self.writer:
                assert answer["embedded"] == self.rows - staged  # nothing twice
            self.seen["went on"] += staged > 0
        else:
            assert found == "new"
            self.seen["finished what followed"] += answer["recovered"] is not None
        config = json.loads((self.store / "config.json").read_text())
        assert config == stores.CMEM_CONFIG | {
            "embedding": {"model": "minilm-f32", "dimensions": 384}
        }
        beside = self.store / "memories.db.emberd"
        left = sorted(path.name for path in beside.iterdir())
        assert left == ["backup-0001.db", "backup-0001.json", "lock"], left
        assert self._space(beside / "backup-0001.db") == "old"

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
        config = json.loads((self.store / "config.json").read_text())
        assert config["embedding"]["model"] in ("old", "minilm-f32")
        space = self._space(self.database)
        assert space == "new" or config == stores.CMEM_CONFIG
        return space

    def _space(self, path: Path) -> str:
        keys, places, vectors = self._rows(path)
        assert self.writer or keys == list(range(1, self.rows + 1))
        if np.array_equal(vectors, self.old[places]):
            return "old"
        assert _lowest(vectors, self.new[places]) > 0.9999, "neither old nor new"
        return "new"

    def _rows(self, path: Path) -> tuple[list[int], list[int], Matrix]:
        """Return the keys, which text each has, and the vectors `(N, D)`, in one look."""
        database = stores.connect(path)
        assert database.execute("PRAGMA integrity_check").get == "ok"
        found = sorted(database.execute(ROW))
        database.close()
        vectors = np.stack([np.frombuffer(raw, "<f4") for _, _, raw in found])
        return [key for key, _, _ in found], [self.place[text] for _, text, _ in found], vectors


def _runs_on(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long; return whether it runs still."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _lowest(a: Matrix, b: Matrix) -> float:
    return float(stores.cosines(a, b).min())


def run(
    kills: int,
    growing: int,
    seed: int,
    *,
    rows: int = ROWS,
    writer: bool = False,
    full_disk: bool = False,
    say: Callable[[str], None] | None = None,
) -> Kills:
    """Do it all; raises AssertionError at the first store that is not as it has to be.

    Raises:
        CannotMountError: there can be no small disk here.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="emberd-kills-") as folder:
        subject = Kills(Path(folder), rows, writer, full_disk)
        if say:
            say(f"a run takes {subject.run_s:.2f} s, its end {subject.end_s:.2f} s")
        for count in range(1, kills + growing + 1):
            while True:  # a run that ends before it is killed was faster than the measured one
                swapping = count > kills
                most_s = subject.end_s if swapping else subject.run_s
                at_s, later_s = chance.uniform(0, most_s), chance.uniform(0, subject.end_s)
                if subject.kill_after(at_s, later_s, swapping=swapping):
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
    parser.add_argument("--writer", action="store_true")
    parser.add_argument("--full-disk", action="store_true")
    asked = parser.parse_args()
    say = partial(print, flush=True)
    say(f"seed {asked.seed}, {asked.rows} rows")
    done = run(
        asked.kills, asked.growing, asked.seed,
        rows=asked.rows, writer=asked.writer, full_disk=asked.full_disk, say=say,
    )  # fmt: skip
    say(f"every store was whole, every second run completed: {dict(done.seen)}")
