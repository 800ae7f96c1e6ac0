"""Kill a migration of any kind of store in each of its phases, beside a writer and a reader.

    python -m tests.migrate.kind_kills pgvector --kills 60 --seed 7
    python -m tests.migrate.kind_kills all --kills 60

Kills are SIGKILL, in turn in each of the five phases, at a moment that is uniform over the time
that an undisturbed command spent there: `stage` (embedding beside the store), `catch-up` (what
changed meanwhile), `swap` (from the backup to the commit), `check` (reading it again) and `undo`.
All the while a program adds, changes and deletes rows through the engine's own client, and another
reads everything. After each kill the same command is run again. Then

- no read may have seen rows of two spaces ("mixtures"),
- the rows that nobody wrote have their texts, and vectors of the right space,
- every row that was written is there with its text; after an undo, there or in the copy,
- the command has completed.

The commands are forked from this process, and say in shared memory which phase they are in.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emberd.migrate import joint_run, stage, swap
from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kills import NEW, Emberd, Ground
from tests.migrate.kinds.base import Rows, Session, Subject, subjects

ROWS = 90
PHASES = ("stage", "catch-up", "swap", "check", "undo")
PAUSE_S = 0.02  # of the writer, after each turn
PATIENCE_S = 90.0  # of a program whose store is locked, or missing for a moment
NEAR = 0.9999
FORK = multiprocessing.get_context("fork")
NOW = FORK.Array("d", 2 * len(PHASES))  # when each phase began and ended, in the last command


class Stoppable(Protocol):
    """An event of this process, or one that several share."""

    def is_set(self) -> bool: ...  # noqa: D102
    def set(self) -> None: ...  # noqa: D102


def mark_phases() -> None:
    """Have commands that are forked from now on say where they are."""

    def marking(phase: str, do: Callable[..., Any]) -> Callable[..., Any]:
        place = 2 * PHASES.index(phase)

        def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as what it wraps
            if not NOW[place]:
                NOW[place] = time.monotonic()
            try:
                return do(*args, **kwargs)
            finally:
                NOW[place + 1] = time.monotonic()
                if phase == "catch-up":
                    NOW[place + 2] = NOW[place + 1]  # the swap begins

        return marked

    if not hasattr(stage, "_unmarked"):
        stage._unmarked = True  # type: ignore[attr-defined]
        stage._catch_up = marking("stage", stage._catch_up)
        swap._bring_up_to_date = marking("catch-up", swap._bring_up_to_date)
        for name in ("bring_over", "verify"):
            setattr(joint_run, name, marking("check", getattr(joint_run, name)))


def spans() -> dict[str, float]:
    """Return how long the last command was in each phase, in seconds; 0 if it was not."""
    began = {phase: NOW[2 * place] for place, phase in enumerate(PHASES)}
    ended = {phase: NOW[2 * place + 1] for place, phase in enumerate(PHASES)}
    ended["swap"] = began["check"]
    return {phase: max(0.0, ended[phase] - began[phase]) for phase in PHASES}


@dataclass
class Written:
    """What the writer has done: the text of each key, None if it was deleted last."""

    rows: dict[Key, str | None] = field(default_factory=dict)
    turns: int = 0


@dataclass
class Kills:
    """One subject, put back for every kill. `seen` counts what happened."""

    subject: Subject
    ground: Ground
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        ground, rows = self.ground, self.ground.rows
        self.folder = ground.folder / self.subject.name
        self.folder.mkdir(exist_ok=True)
        keys = [self.subject.key(number) for number in range(rows)]
        self.subject.create(list(zip(keys, ground.texts, ground.old[:rows], strict=True)))
        # The writer changes and deletes every third of them.
        self.quiet = {key: at for at, key in enumerate(keys) if at % 3}
        mark_phases()
        self._measure()

    def _measure(self) -> None:
        """Time an undisturbed run and its undo, beside writer and reader."""
        with self._used() as written:
            self._completed("run")
            self.took = spans()
            self._compare(written, "new")
            began_s = time.monotonic()
            if not hasattr(self.subject, "copied"):
                return
        with self._used(fresh=False) as written:
            self._completed("undo")
            self._compare(written, "old")
        self.took["undo"] = time.monotonic() - began_s

    # -- those who use the store meanwhile ----------------------------------------------------

    @contextmanager
    def _used(self, *, fresh: bool = True, writes: bool = True) -> Iterator[Written]:
        """Have somebody write to the store and somebody read it; what was written is yielded.

        It is complete when the context has ended; the reader's finds are then counted.
        """
        if fresh:
            self._reset()
        stop, results = self._event(), self.folder
        for name in ("writer.json", "reader.json"):
            (results / name).unlink(missing_ok=True)
        helpers = [self._start(self._read, stop)]
        if writes:
            helpers.append(self._start(self._write, stop))
        self.written = Written()
        self._stop = partial(self._end, helpers, stop)
        try:
            yield self.written
        finally:
            self._stop()

    def _reset(self) -> None:
        """Have the store as it was made, and forget its migrations."""
        self.subject.reset()
        shutil.rmtree(self.ground.home / "state" / "stores", ignore_errors=True)

    def _event(self) -> Stoppable:
        return threading.Event() if self.subject.one_process else FORK.Event()

    def _start(self, do: Callable[[Stoppable], None], stop: Stoppable) -> Any:  # noqa: ANN401
        kind = threading.Thread if self.subject.one_process else FORK.Process
        started = kind(target=do, args=(stop,))
        started.start()
        return started

    def _end(self, helpers: list[Any], stop: Stoppable) -> None:
        """Stop both, once; read what they noted."""
        if stop.is_set():
            return
        stop.set()
        for each in helpers:
            each.join(PATIENCE_S + 30)
            assert not each.is_alive(), "it has not ended"
            assert getattr(each, "exitcode", 0) == 0, "somebody who uses the store has failed"
        found = json.loads((self.folder / "reader.json").read_text())
        assert not found.pop("mixtures"), f"a reader saw a mixture: {found}"
        self.seen.update({f"read: {name}": count for name, count in found.items()})
        if (self.folder / "writer.json").exists():
            noted = json.loads((self.folder / "writer.json").read_text())
            self.written.rows = dict(noted["rows"])
            self.written.turns = noted["turns"]
            self.seen["rows written meanwhile"] += noted["turns"]

    def _write(self, stop: Stoppable) -> None:
        session, ground = _patiently(self.subject.session), self.ground
        more = json.loads((ground.written / "texts.json").read_text())
        rows: dict[Key, str | None] = {}
        turn = 0
        while not stop.is_set():
            turn += 1
            at = turn % len(more)
            number = ground.rows + at if turn % 2 else 3 * (at % (ground.rows // 3))
            key = self.subject.key(number)
            if turn % 7:
                place = ground.rows + at
                migrated = _patiently(session.is_migrated)
                vector = (ground.new if migrated else ground.old)[place]
                _patiently(partial(session.put, key, more[at], vector))
            else:
                _patiently(partial(session.delete, key))
            rows[key] = more[at] if turn % 7 else None
            time.sleep(PAUSE_S)
        session.close()
        noted = {"rows": list(rows.items()), "turns": turn}
        (self.folder / "writer.json").write_text(json.dumps(noted))

    def _read(self, stop: Stoppable) -> None:
        found: Counter[str] = Counter({"mixtures": 0})
        session: Session | None = None
        while not stop.is_set():
            try:
                session = session or self.subject.session()
                rows = session.rows()
            except Exception as error:  # noqa: BLE001 - whatever the engine raises; it is counted
                found[type(error).__name__] += 1
                time.sleep(PAUSE_S)
                if session:
                    with suppress(Exception):
                        session.close()
                    session = None
                continue
            space = self._space_of(rows)
            found["mixtures" if space is None else space] += 1
            time.sleep(PAUSE_S)
        if session:
            session.close()
        (self.folder / "reader.json").write_text(json.dumps(found))

    def _space_of(self, rows: Rows) -> str | None:
        """Return in which space the rows are that nobody writes; None if in no single one."""
        if not self.quiet.keys() <= rows.keys():
            return None
        vectors = np.stack([rows[key][1] for key in self.quiet])
        places = list(self.quiet.values())
        for name, space in (("old", self.ground.old), ("new", self.ground.new)):
            if vectors.shape == space[places].shape and _lowest(vectors, space[places]) > NEAR:
                return name
        return None

    # -- commands -----------------------------------------------------------------------------

    def _command(self, command: str) -> Emberd:
        entry = self.subject.entry
        arguments = ["migrate", command, entry["path"], "--kind", entry["kind"], "--yes", "--json"]
        for name, value in entry.get("options", {}).items():
            arguments += ["-o", f"{name}={value}"]
        if command == "run":
            arguments += ["--to", NEW, "--batch", "10"]
        for place in range(len(NOW)):
            NOW[place] = 0.0
        return Emberd(arguments, self.ground.home, self.folder)

    def _completed(self, command: str) -> dict[str, Any]:
        process = self._command(command)
        output, errors = process.ended()
        assert process.returncode == 0, errors
        answer: dict[str, Any] = json.loads(output)
        return answer

    def kill(self, phase: str, chance: random.Random) -> bool:
        """Kill a command in a phase, and run it again; False if it was through by then."""
        command = "undo" if phase == "undo" else "run"
        if command == "undo":
            self._reset()
            self._completed("run")
        writes = command == "run" or hasattr(self.subject, "copied")
        with self._used(fresh=command == "run", writes=writes) as written:
            process = self._command(command)
            place = 2 * PHASES.index(phase)
            if command == "run":
                process.wait_until(lambda: bool(NOW[place]))
            process.runs_on(chance.uniform(0, self.took[phase]))
            process.kill()
            process.ended()
            killed = process.returncode == -9
            self._again(command, killed=killed)
            self._stop()
            self._compare(written, "new" if command == "run" else "old")
        if killed:
            self.seen[f"killed in {self._where(phase)}"] += 1
        return killed

    def _where(self, phase: str) -> str:
        return phase

    def _again(self, command: str, *, killed: bool) -> None:
        process = self._command(command)
        output, errors = process.ended()
        if command == "undo" and process.returncode == 1:
            assert "no backup" in errors, errors  # the first was through, but for saying so
            self.seen["was through"] += 1
            return
        assert process.returncode == 0, errors
        answer = json.loads(output)
        if command == "run":
            self.seen["recovered"] += bool(killed and answer["recovered"])
            self.seen["strays"] += answer.get("strays", 0)
            self.seen["late"] += answer.get("late", 0)

    # -- what has to hold ---------------------------------------------------------------------

    def _compare(self, written: Written, space: str) -> None:
        """Hold the store to what it was made of and what was written since."""
        self._stop()
        session = _patiently(self.subject.session)
        rows = session.rows()
        session.close()
        assert self._space_of(rows) == space, f"the rows nobody wrote are not {space}"
        for key, at in self.quiet.items():
            assert rows[key][0] == self.ground.texts[at]
        copied: Callable[[], Rows] | None = getattr(self.subject, "copied", None)
        elsewhere = copied() if copied and space == "old" else {}
        for key, text in written.rows.items():
            there = {each[key][0] for each in (rows, elsewhere) if key in each}
            if text is None:
                assert space == "old" or not there, f"row {key!r} was deleted, and is there"
            else:
                assert text in there, f"row {key!r} is lost"
                self._has_its_vector(rows.get(key), text)

    def _has_its_vector(self, row: tuple[str, Matrix] | None, text: str) -> None:
        """A row has its text's vector in one of the spaces; which one its writer has chosen."""
        if row and row[0] == text and row[1].size:
            at = self.ground.place[text]
            spaces = (self.ground.old[at], self.ground.new[at])
            near = [_lowest(row[1][None], each[None]) > NEAR for each in spaces]
            assert any(near), "a row has another text's vector"


def _patiently(do: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    """Try again as a program does whose store is locked, or missing for a moment."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return do()
        except Exception:
            if time.monotonic() > until_s:
                raise
            time.sleep(PAUSE_S)


def _lowest(a: Matrix, b: Matrix) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min())


def run(
    kind: type[Subject],
    kills: int,
    seed: int,
    *,
    rows: int = ROWS,
    phases: tuple[str, ...] = PHASES,
    say: Callable[[str], None] = lambda _what: None,
) -> Counter[str]:
    """Do it all for one kind; return what was seen.

    Raises:
        AssertionError: a store is not as it has to be.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    with (
        tempfile.TemporaryDirectory(prefix="emberd-kills-") as name,
        Ground(Path(name), rows) as ground,
        kind(_made(ground.folder / "engine")) as subject,
    ):
        tried = Kills(subject, ground)
        took = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in tried.took.items())
        say(f"{kind.name}: seconds of a run beside others: {took}")
        done = tries = 0
        while done < kills:
            phase = phases[done % len(phases)]
            # One that ends before it is killed was faster than the measured one: again.
            done += tried.kill(phase, chance)
            tries += 1
            assert tries < 4 * kills + 20, f"too few were still running: {dict(tried.seen)}"
            if done % 10 == 0:
                say(f"{done} of {kills}: {dict(tried.seen)}")
        return tried.seen


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    """Read the command line; print what was seen of each kind."""
    kinds = {subject.name: subject for subject in subjects()}
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=[*kinds, "all"])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--out", type=Path, help="also write what was seen to this file")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    asked = parser.parse_args()
    say = partial(print, flush=True)
    for name in kinds if asked.kind == "all" else [asked.kind]:
        began_s = time.monotonic()
        say(f"{name}: seed {asked.seed}, {asked.rows} rows")
        found = run(kinds[name], asked.kills, asked.seed, rows=asked.rows, say=say)
        if asked.out:
            asked.out.write_text(json.dumps(found))
        say(f"{name}: no row lost, no mixture seen, every command completed: {dict(found)},"
            f" {time.monotonic() - began_s:.0f} s")  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
