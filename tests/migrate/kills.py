"""Kill a migration or its undo at any moment, look at the store, and have the same command go on.

    python -m tests.migrate.kills --command run --mode all --kills 200 --writer --seed 7
    python -m tests.migrate.kills --command undo --mode all --kills 200 --writer --seed 7
    python -m tests.migrate.kills --command run --mode wal --kills 100 --full-disk --seed 7

Kills are SIGKILL from this process, in turn uniform over the time that an undisturbed command took
and over what it does from the backup (`run`) or the copy (`undo`) on. They are spread over SQLite's
journal modes. Every time the store has to open, pass SQLite's integrity check, and be wholly in the
old space or wholly in the new one; then the same command has to complete it. With `--writer` a
program adds, changes and deletes rows all the while, some in two transactions, and embeds them in
the space that the store names at that moment: in the end all it wrote has to be in the store, or,
of an undo, in the copy up to one of its turns and in the store from the next. With `--full-disk`
nothing is left of the store's disk from that moment on, and the kill comes somewhat later, unless
the command has given up by then. Two tiny models, BERT and RoBERTa, embed, in a server: most of the
time is the migration's.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import apsw
import numpy as np
import typer

from emberd.cli.main import app, main
from emberd.config.load import load_config
from emberd.stores import plugins  # noqa: F401 - once for all
from emberd.vectors import Matrix
from tests import disk
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.writer import keep_writing
from tests.serving import Server, clean_environ, wait_for

ROWS = 60
WRITTEN = 61  # texts that only the writer has
PAUSE_S = 0.005  # of the writer, after each turn
DISK_MIB = 40
MODES = ("wal", "delete", "truncate")
ROW = "SELECT m.id, m.content, v.embedding FROM vec_memories v JOIN memories m ON m.id = v.rowid"
TEXTS = "SELECT count(*) FROM memories"
ASIDE = "SELECT count(*) FROM sqlite_schema WHERE name = 'emberd_set_aside'"
TINY = Path(__file__).parents[1] / "reference" / "tiny"
OLD, NEW, DIMENSIONS = "tiny-bert", "tiny-roberta", 64
CONFIG = f"""
default: {OLD}
limits: {{idle_unload: never}}
models:
  {OLD}: {{sources: [{{path: {TINY / "bert"}}}], dimensions: {DIMENSIONS}, pooling: mean}}
  {NEW}: {{sources: [{{path: {TINY / "roberta"}}}], dimensions: {DIMENSIONS}, pooling: mean}}
"""
FORK = multiprocessing.get_context("fork")
Command = Literal["run", "undo"]


class Emberd:
    """The command line in a process of its own, forked: most of its time is the migration's."""

    def __init__(self, arguments: list[str], home: Path, folder: Path) -> None:
        self._said = [folder / "stdout", folder / "stderr"]
        self._process = FORK.Process(target=self._main, args=(arguments, clean_environ(home)))
        self._process.start()

    def _main(self, arguments: list[str], environ: dict[str, str]) -> None:
        for descriptor, path in enumerate(self._said, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        # Under pytest the present ones lead to what it has captured.
        sys.stdout, sys.stderr = (os.fdopen(each, "w", closefd=False) for each in (1, 2))
        os.environ.clear()
        os.environ.update(environ)
        sys.argv[1:] = arguments
        main()

    @property
    def returncode(self) -> int | None:
        """As that of `subprocess.Popen`."""
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL; nothing to a process that has ended."""
        self._process.kill()

    def runs_on(self, seconds: float) -> bool:
        """Wait this long; return whether it is still running."""
        self._process.join(seconds)
        return self._process.is_alive()

    def wait_until(self, look: Callable[[], bool]) -> float | None:
        """Return when something is seen, None when the process has ended before."""
        while self._process.is_alive():
            if look():
                return time.monotonic()
            time.sleep(0.001)
        return None

    def ended(self) -> tuple[str, str]:
        """Wait for its end; return what it printed."""
        self._process.join(300)
        assert self._process.exitcode is not None
        output, errors = (path.read_text() for path in self._said)
        return output, errors


def warm(home: Path) -> None:
    """Do once what each command that is forked from this process would do for itself."""
    load_config(environ=clean_environ(home))
    for name in ("numpy.ma", "emberd.migrate.check", "emberd.migrate.plan", "emberd.migrate.undo"):
        import_module(name)
    typer.main.get_command = cache(typer.main.get_command)
    typer.main.get_command(app)


@dataclass
class Ground:
    """What all kills share: texts in two spaces, and a server that embeds."""

    folder: Path
    rows: int

    def __enter__(self) -> Self:
        self.home = self.folder / "home"
        texts = stores.texts(self.rows + WRITTEN)
        self.texts, self.more = texts[: self.rows], texts[self.rows :]
        self.place = {text: at for at, text in enumerate(texts)}
        self._server = Server(self.home, config=CONFIG)
        warm(self.home)
        self.old, self.new = (
            np.array(self._server.embed(*texts, model=model)["embeddings"], "<f4")
            for model in (OLD, NEW)
        )
        self.written = self.folder / "written"
        self.written.mkdir()
        (self.written / "texts.json").write_text(json.dumps(self.more))
        np.save(self.written / "old.npy", self.old[self.rows :])
        np.save(self.written / "new.npy", self.new[self.rows :])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


@dataclass
class Kills:
    """One store in one journal mode, copied for every kill. `seen` counts what was found then."""

    ground: Ground
    command: Command
    journal: str = "wal"
    writer: bool = False
    full_disk: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        ground, rows = self.ground, self.ground.rows
        self.before, self.after = ("old", "new") if self.command == "run" else ("new", "old")
        self.folder = ground.folder / f"{self.command}-{self.journal}"
        self.untouched = self.folder / "untouched"
        stores.make_cmem(
            self.untouched, ground.texts, ground.old[:rows], journal=self.journal
        )  # fmt: skip
        self.disk = self.folder / "disk"
        self.store = self.disk / "store"
        self.database = self.store / "memories.db"
        self.beside = self.store / "memories.db.emberd"
        if self.command == "undo":
            self.disk.mkdir()
            shutil.copytree(self.untouched, self.store)
            self._answer(self._start("run"))
            shutil.rmtree(self.untouched)
            self.store.rename(self.untouched)
        with self._fresh():
            began_s = time.monotonic()
            process = self._start()
            swap_s = self._wait_for_swap(process) or began_s
            self.end_s = (self._wait_for_end(process) or time.monotonic()) - swap_s
            self._answer(process)
            self.run_s = time.monotonic() - began_s
            assert self.look() == self.after

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        """Have the store as it was before all, and perhaps somebody who writes to it."""
        with ExitStack() as stack:
            self.disk.mkdir(exist_ok=True)
            if self.full_disk:
                stack.enter_context(disk.mounted(self.disk, DISK_MIB))
            else:
                shutil.rmtree(self.store, ignore_errors=True)
            shutil.copytree(self.untouched, self.store)
            if self.writer:
                stack.enter_context(self._written_to())
            yield

    @contextmanager
    def _written_to(self) -> Iterator[None]:
        written = self.ground.written
        for name in ("stop", "done.json"):
            (written / name).unlink(missing_ok=True)
        # Of an undo whole rows only: a half before the restore and one after it are kept apart.
        writer = FORK.Process(
            target=keep_writing,
            args=(self.database, written),
            kwargs={
                "journal": self.journal, "pause_s": PAUSE_S, "halves": self.command == "run",
            },
        )  # fmt: skip
        writer.start()
        try:
            wait_for(lambda: self._turns(self.database))
            yield
            self._await_turns()
        finally:
            (written / "stop").touch()
            writer.join(60)
        assert writer.exitcode == 0
        self._compare_with_what_was_written()

    def _await_turns(self) -> None:
        """Let it write to what came out, too."""
        seen = len(self._turns(self.database))
        wait_for(lambda: len(self._turns(self.database)) > seen + 1)

    def _compare_with_what_was_written(self) -> None:
        ground = self.ground
        done = json.loads((ground.written / "done.json").read_text())["written"]
        self.seen["rows written meanwhile"] += len(done)
        turns = self._turns(self.database)
        copied: list[int] = []
        if self.command == "undo":
            (copy,) = self.beside.glob("undone-*.db")
            copied = self._turns(copy)
            self._compare(copy, done[: len(copied)], ground.new)
        assert copied + turns == list(range(1, len(done) + 1)), "turns of the writer are lost"
        self._compare(self.database, done[len(copied) :], getattr(ground, self.after))

    def _compare(self, path: Path, done: list[tuple[int, int | None]], space: Matrix) -> None:
        """Hold a store to the texts it was made of and what was written since, in one space."""
        expected: dict[int, int] = {at + 1: at for at in range(self.ground.rows)}
        for key, at in done:
            expected.pop(key, None)
            if at is not None:
                expected[key] = self.ground.rows + at
        keys, places, vectors, texts = self._rows(path)
        assert dict(zip(keys, places, strict=True)) == expected
        assert texts == len(keys), "texts without a vector, or vectors set aside"
        assert _lowest(vectors, space[places]) > 0.9999

    def _start(self, command: Command | None = None) -> "Emberd":
        arguments = ["migrate", command or self.command, str(self.store), "--yes", "--json"]
        if "run" in arguments:
            arguments += ["--to", NEW, "--batch", "10"]
        return Emberd(arguments, self.ground.home, self.folder)

    def _wait_for_swap(self, process: "Emberd") -> float | None:
        """Return when its backup or copy was begun."""
        name = "pending.db" if self.command == "run" else "undone-0001.db"
        signs = [self.beside / name, self.beside / f"{name}.partial"]
        return process.wait_until(lambda: any(sign.exists() for sign in signs))

    def _wait_for_end(self, process: "Emberd") -> float | None:
        """Return when what it goes by was deleted."""
        name = "pending.json" if self.command == "run" else "backup-0001.json"
        process.wait_until(lambda: self.beside.joinpath(name).exists())
        return process.wait_until(lambda: not self.beside.joinpath(name).exists())

    def kill_after(self, seconds: float, later_s: float, *, swapping: bool) -> bool:
        """Kill one command so long after its start, or after its swap began; finish it.

        With a full disk, it is full then, and the kill comes `later_s` after it. Returns False for
        one that was through by then, and takes its time as the measured one.
        """
        with self._fresh():
            began_s = since_s = time.monotonic()
            process = self._start()
            if swapping:
                since_s = self._wait_for_swap(process) or since_s
            hog = None
            if process.runs_on(seconds) and self.full_disk:
                hog = disk.fill(self.disk)
                process.runs_on(later_s)
            process.kill()  # nothing to a process that has ended
            _, errors = process.ended()
            now_s = time.monotonic()
            if hog:
                hog.unlink()
            how = self._how(process.returncode, errors, hog)
            found = self.look()
            if how == "through":
                assert found == self.after
                if not hog and swapping:
                    self.end_s = now_s - since_s
                elif not hog:
                    self.run_s = now_s - began_s
                if not hog:
                    return False
            self.seen[f"{how}, {found}"] += 1
            self._finish(found, how)
            return True

    def _how(self, code: int | None, errors: str, hog: Path | None) -> str:
        if code == -signal.SIGKILL:
            return "killed"
        if code:
            assert hog, errors
            assert "Traceback" not in errors, errors
            assert "full" in errors or "cannot be" in errors or "left" in errors, errors
            return "gave up"
        return "through"

    def _finish(self, found: str, how: str) -> None:
        staged = self.staged()
        process = self._start()
        output, errors = process.ended()
        if self.command == "undo" and process.returncode == 1 and found == "old":
            assert "no backup" in errors, errors  # the first was through, but for saying so
            self.seen["was through"] += 1
        else:
            assert process.returncode == 0, errors
            if self.command == "run":
                self._finish_run(json.loads(output), found, staged)
        assert self.look() == self.after
        config = json.loads((self.store / "config.json").read_text())
        left = sorted(path.name for path in self.beside.iterdir())
        if self.command == "undo":
            assert config == stores.CMEM_CONFIG
            assert left == ["lock", "undone-0001.db"], (how, left)
            return
        model = {"model": NEW, "dimensions": DIMENSIONS}
        assert config == stores.CMEM_CONFIG | {"embedding": model}
        assert left == ["backup-0001.db", "backup-0001.json", "lock"], (how, left)
        assert self._space(self.beside / "backup-0001.db") == "old"

    def _finish_run(self, answer: dict[str, Any], found: str, staged: int) -> None:
        if answer["status"] == "moved":
            if not self.writer:
                assert answer["embedded"] == self.ground.rows - staged  # nothing twice
            assert answer["strays"] == 0
            self.seen["went on"] += staged > 0
        else:
            assert found == "new"
            self.seen["finished what followed"] += answer["recovered"] is not None
        self.seen["halves completed"] += answer["completed"]

    def staged(self) -> int:
        """Return how many rows the stopped run left ready."""
        sidecar = self.beside / "staged.db"
        if not sidecar.exists():
            return 0
        database = stores.connect(sidecar)
        try:
            return int(database.execute("SELECT count(*) FROM staged").get)
        except apsw.SQLError:  # killed before the table was made
            return 0
        finally:
            database.close()

    def _answer(self, process: "Emberd") -> dict[str, Any]:
        output, errors = process.ended()
        assert process.returncode == 0, errors
        answer: dict[str, Any] = json.loads(output)
        return answer

    def look(self) -> str:
        """Return `old` or `new`; anything else is a failure.

        Where nobody writes a copy is looked at: this would roll back what emberd has to.
        """
        config = json.loads((self.store / "config.json").read_text())
        assert config["embedding"]["model"] in ("old", NEW)
        if self.writer:
            space = self._space(self.database)
        else:
            looked = Path(tempfile.mkdtemp(dir=self.folder))
            for file in self.store.glob("memories.db*"):
                if file.is_file() and not file.name.endswith("-shm"):
                    shutil.copy(file, looked)
            space = self._space(looked / "memories.db")
            shutil.rmtree(looked)
        if self.command == "run":
            assert space == "new" or config == stores.CMEM_CONFIG
        return space

    def _space(self, path: Path) -> str:
        ground = self.ground
        keys, places, vectors, _ = self._rows(path)
        assert self.writer or keys == list(range(1, ground.rows + 1))
        if np.array_equal(vectors, ground.old[places]):
            return "old"
        assert _lowest(vectors, ground.new[places]) > 0.9999, "neither old nor new"
        return "new"

    def _rows(self, path: Path) -> tuple[list[int], list[int], Matrix, int]:
        """Return keys, which text each has, the vectors `(N, D)`, and the count of all texts."""
        database = stores.connect(path)
        assert database.execute("PRAGMA integrity_check").get == "ok"
        with database:  # one look
            found = sorted(database.execute(ROW))
            texts = int(database.execute(TEXTS).get) + int(database.execute(ASIDE).get)
        database.close()
        vectors = np.stack([np.frombuffer(raw, "<f4") for _, _, raw in found])
        places = [self.ground.place[text] for _, text, _ in found]
        return [key for key, _, _ in found], places, vectors, texts

    def _turns(self, path: Path) -> list[int]:
        database = stores.connect(path)
        found = [turn for (turn,) in database.execute("SELECT turn FROM turns ORDER BY turn")]
        database.close()
        return found


def _lowest(a: Matrix, b: Matrix) -> float:
    return float(cosines(a, b).min())


def run(
    command: Command,
    kills: int,
    seed: int,
    *,
    modes: tuple[str, ...] = MODES,
    rows: int = ROWS,
    writer: bool = False,
    full_disk: bool = False,
    say: Callable[[str], None] = lambda _what: None,
) -> Counter[str]:
    """Do it all, the kills spread over the modes; return what was seen.

    Raises:
        AssertionError: a store is not as it has to be.
        CannotMountError: there can be no small disk here.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    seen: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="emberd-kills-") as folder,
        Ground(Path(folder), rows) as ground,
    ):
        done = 0
        for place, mode in enumerate(modes):
            subject = Kills(ground, command, mode, writer, full_disk)
            say(f"{mode}: {command} takes {subject.run_s:.2f} s, its end {subject.end_s:.2f} s")
            while done < kills * (place + 1) // len(modes):
                swapping = bool(done % 2)
                most_s = subject.end_s if swapping else subject.run_s
                at_s, later_s = chance.uniform(0, most_s), chance.uniform(0, subject.end_s)
                # One that ends before it is killed was faster than the measured one: again.
                done += subject.kill_after(at_s, later_s, swapping=swapping)
                if done % 10 == 0:
                    say(f"{done} of {kills}: {dict(seen + subject.seen)}")
            seen += subject.seen
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--command", choices=["run", "undo"], default="run")
    parser.add_argument("--mode", choices=["all", *MODES, "persist"], default="all")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    parser.add_argument("--writer", action="store_true")
    parser.add_argument("--full-disk", action="store_true")
    asked = parser.parse_args()
    say = partial(print, flush=True)
    began_s = time.monotonic()
    say(f"seed {asked.seed}, {asked.rows} rows")
    found = run(
        asked.command, asked.kills, asked.seed,
        modes=MODES if asked.mode == "all" else (asked.mode,),
        rows=asked.rows, writer=asked.writer, full_disk=asked.full_disk, say=say,
    )  # fmt: skip
    took_s = time.monotonic() - began_s
    say(f"every store was whole, every second {asked.command} completed: {dict(found)},"
        f" {took_s:.0f} s")  # fmt: skip
