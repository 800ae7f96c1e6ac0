"""Kill a migration of any kind of store in each of its phases, beside a writer and a reader.

    python -m tests.migrate.kind_kills pgvector --kills 60 --seed 7
    python -m tests.migrate.kind_kills all --kills 60

Kills are SIGKILL, in turn in each of the five phases: `stage` (embedding beside the store),
`catch-up` (what changed meanwhile), `swap` (from the backup to the commit), `check` (reading it
again, and tidying up) and `undo`, which always follows a run that was killed. Half of them come at
a moment that is uniform over the time that an undisturbed command spent in that phase, half at a
step that is uniform over those it took there: that it enters or leaves some function of
`emberd.migrate` or `emberd.stores` for the first time. All the while a program adds, changes and
deletes rows through the engine's own client, and another reads everything. After each kill the
same command is run again. Then

- no read may have seen rows of two spaces ("mixtures"), or failed in another way than is known,
- the rows that nobody wrote have their texts, and vectors of the right space,
- every row that was written is there with its text and vector; after an undo, there or in the copy,
- nothing is left behind: there are the files, tables and collections of an undisturbed command,
- the command has completed.

The commands are forked from this process, and say in shared memory which phase they are in.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

import emberd
from emberd.migrate import joint_run, stage, swap, undo
from emberd.stores import plugins, probing
from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.cosines import cosines
from tests.migrate.kills import NEW, WRITTEN, Emberd, Ground
from tests.migrate.kinds.base import Rows, Session, Subject, apart, subjects

ROWS = 90
PHASES = ("stage", "catch-up", "swap", "check", "undo")
PAUSE_S = 0.05  # of the writer, after each turn
READ_PAUSE_S = 0.1  # of the reader, who takes most of the processor otherwise
VISIT = 7  # turns of a writer that cannot stay beside the command
PATIENCE_S = 90.0  # of a program whose store is locked, missing for a moment or slow to answer
NEAR = 0.9999
MOST_STRAYS = 2  # rows that were on their way while the space changed: by a command, and by another
FORK = multiprocessing.get_context("fork")
BEGAN = FORK.Array("d", len(PHASES))  # when the last command began each phase
STEPS = FORK.Array("i", len(PHASES))  # and how many steps it took there, if they were counted
AIM = FORK.Array("i", 2)  # the phase whose steps are counted, and the step at which to be killed
COUNT_ALL, NO_AIM = (-1, 0), (len(PHASES), 0)
TRIES = 40  # of a kill, until it comes in the right phase
NUMBERED = re.compile(r"-emberd-[0-9a-f]{4}|[0-9]{4}")
OURS = tuple(str(Path(emberd.__path__[0]) / part) for part in ("migrate", "stores"))


def mark_phases() -> None:
    """Have commands that are forked from now on say where they are."""

    def marking(phase: str, do: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as what it wraps
            if not after:
                _begin(PHASES.index(phase))
            done = do(*args, **kwargs)
            if after:
                _begin(PHASES.index(phase))
            return done

        return marked

    stage._catch_up = marking("stage", stage._catch_up)
    up_to_date = marking("catch-up", swap._bring_up_to_date)
    swap._bring_up_to_date = marking("swap", up_to_date, after=True)
    setattr(joint_run, "bring_over", marking("check", swap.bring_over))  # noqa: B010
    undo.undo = marking("undo", undo.undo)


def _begin(place: int) -> None:
    """Note that a phase begins, and count its steps if they are asked for."""
    if not BEGAN[place]:
        BEGAN[place] = time.monotonic()
        sys.setprofile(_counting(place) if AIM[0] in (place, COUNT_ALL[0]) else None)


def _counting(place: int) -> Callable[[FrameType, str, object], None]:
    """Return what counts a phase's steps, and kills this process at the one that is aimed at."""
    seen: set[tuple[CodeType, str]] = set()

    def counting(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if (code, event) in seen or event not in ("call", "return"):
            return
        if code.co_filename.startswith(OURS):
            seen.add((code, event))
            STEPS[place] = len(seen)
            if AIM[0] == place and len(seen) == AIM[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    return counting


def phases_in_turn() -> Iterator[str]:
    """Yield the phases of a run, again and again, and `undo` after another of them each time."""
    *of_a_run, last = PHASES
    for turn in count():
        for place, phase in enumerate(of_a_run):
            yield phase
            if place == turn % len(of_a_run):
                yield last


@dataclass
class Written:
    """What the writer has done since the store was reset: the last text of each key, or None."""

    rows: dict[Key, str | None] = field(default_factory=dict)
    turns: int = 0


@dataclass(frozen=True)
class Left:
    """What a command has left: files beside the store, things in the engine, backups and copies."""

    files: list[str]
    things: int
    kept: int


@dataclass
class Kills:
    """One subject, put back for every run that is killed. `seen` counts what happened."""

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
        self.alone = getattr(self.subject, "one_process", False)
        self.pause_s = getattr(self.subject, "pause_s", PAUSE_S)
        self.may_raise: Sequence[str] = getattr(self.subject, "may_raise", ())
        self.things: Callable[[], int] = getattr(self.subject, "things", int)
        self.tries: Counter[str] = Counter()
        self.left: dict[str, Left] = {}
        self.kept_as_things = 0
        self._measure()

    def _measure(self) -> None:
        """Time an undisturbed run and its undo, beside the others, and count their steps."""
        self._reset()
        untouched = apart(self.things)
        self.took: dict[str, float] = {}
        self.steps: dict[str, int] = {}
        for command in ("run", "undo"):
            with self._used():
                self._completed(command, COUNT_ALL)
                began = [*BEGAN[:], time.monotonic()]
            for place, phase in enumerate(PHASES):
                if began[place]:
                    self.took[phase] = min(filter(None, began[place + 1 :])) - began[place]
                    self.steps[phase] = STEPS[place]
            self._compare()
        self.kept_as_things = self.left["old"].things - untouched  # that of the undo

    # -- those who use the store meanwhile ----------------------------------------------------

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Have somebody write to the store and somebody read it, beside what is done in here."""
        if self.alone:
            yield
            self._visit()
            return
        stop = FORK.Event()
        helpers = [self._start(each, stop.is_set) for each in (self._read, self._write)]
        try:
            yield
        finally:
            stop.set()
            for each in helpers:
                self._end(each)
        self._count()

    def _visit(self) -> None:
        """Have them come between two commands, if they cannot use the store beside one."""
        if self.alone:
            for each in (self._write, self._read):
                self._end(self._start(each, _after(VISIT)))
            self._count()

    def _start(self, do: Callable[..., None], is_over: Callable[[], bool]) -> Any:  # noqa: ANN401
        started = FORK.Process(target=do, args=(is_over,))
        started.start()
        return started

    def _end(self, helper: Any) -> None:  # noqa: ANN401
        helper.join(PATIENCE_S + 30)
        assert not helper.is_alive(), "somebody who uses the store has not ended"
        assert helper.exitcode == 0, "somebody who uses the store has failed"

    def _count(self) -> None:
        """Read what both noted."""
        found = Counter(json.loads((self.folder / "reader.json").read_text()))
        assert not found["mixtures"], f"a reader saw a mixture: {found}"
        unknown = found.keys() - {"mixtures", "old", "new", *self.may_raise}
        assert not unknown, f"a reader failed: {found}"
        self.seen.update({f"read: {name}": seen for name, seen in found.items() if seen})
        noted = json.loads((self.folder / "writer.json").read_text())
        self.written.rows.update(dict(noted["rows"]))
        self.written.turns += noted["turns"]
        self.seen["rows written meanwhile"] += noted["turns"]

    def _reset(self) -> None:
        """Have the store as it was made, and forget its migrations."""
        shutil.rmtree(self.ground.home / "state" / "stores", ignore_errors=True)
        self.subject.reset()
        self.written = Written()
        self.space = "old"
        self.backups = 0

    def _write(self, is_over: Callable[[], bool]) -> None:
        patience_s = 0.0 if self.alone else PATIENCE_S
        rows: dict[Key, str | None] = {}
        turns = 0
        try:
            session = _patiently(self.subject.session, patience_s)
            while not is_over():
                turns += 1
                key, text, vectors = self._turn(turns)
                if text:
                    vector = vectors[_patiently(session.is_migrated, patience_s)]
                    _patiently(partial(session.put, key, text, vector), patience_s)
                else:
                    _patiently(partial(session.delete, key), patience_s)
                rows[key] = text
                time.sleep(self.pause_s)
            session.close()
        except Exception:
            if not self.alone:
                raise
        noted = {"rows": list(rows.items()), "turns": turns}
        (self.folder / "writer.json").write_text(json.dumps(noted))

    def _turn(self, turn: int) -> tuple[Key, str | None, tuple[Matrix, Matrix]]:
        """Return a key, its new text, or None to delete it, and the text's vector, old and new."""
        ground = self.ground
        at = turn % WRITTEN
        number = ground.rows + at if turn % 2 else 3 * (at % (ground.rows // 3))
        place = ground.rows + at
        text = ground.more[at] if turn % 7 else None
        return self.subject.key(number), text, (ground.old[place], ground.new[place])

    def _read(self, is_over: Callable[[], bool]) -> None:
        found: Counter[str] = Counter()
        session: Session | None = None
        while not is_over():
            try:
                session = session or self.subject.session()
                found[self._space_of(session.rows()) or "mixtures"] += 1
            except Exception as error:  # noqa: BLE001 - whatever the engine raises; it is judged
                found[type(error).__name__] += 1
                if session:
                    with suppress(Exception):
                        session.close()
                    session = None
            time.sleep(READ_PAUSE_S)
        if session:
            session.close()
        (self.folder / "reader.json").write_text(json.dumps(found))

    def _space_of(self, rows: Rows) -> str | None:
        """Return in which space the rows are that nobody writes; None if in no single one."""
        if not self.quiet.keys() <= rows.keys():
            return None
        places = list(self.quiet.values())
        if any(rows[key][0] != self.ground.texts[at] for key, at in self.quiet.items()):
            return None
        if len({rows[key][1].shape for key in self.quiet}) > 1:
            return None
        vectors = np.stack([rows[key][1] for key in self.quiet])
        for name, space in self._spaces().items():
            if _are_near(vectors, space[places]):
                return name
        return None

    def _spaces(self) -> dict[str, Matrix]:
        return {"old": self.ground.old, "new": self.ground.new}

    # -- commands -----------------------------------------------------------------------------

    def _command(self, command: str, aim: tuple[int, int] = NO_AIM) -> Emberd:
        """Start one that says where it is; `aim` is for `AIM`."""
        entry = self.subject.entry
        arguments = ["migrate", command, entry["path"], "--kind", entry["kind"], "--yes", "--json"]
        for name, value in entry.get("options", {}).items():
            arguments += ["-o", f"{name}={value}"]
        if command == "run":
            arguments += ["--to", NEW, "--batch", "10"]
        BEGAN[:] = [0.0] * len(PHASES)
        STEPS[:] = [0] * len(PHASES)
        AIM[:] = aim
        return Emberd(arguments, self.ground.home, self.folder)

    def _completed(self, command: str, aim: tuple[int, int] = NO_AIM) -> None:
        """Run one to its end."""
        process = self._command(command, aim)
        output, errors = process.ended()
        self.space = "new" if command == "run" else "old"
        if command == "undo" and process.returncode == 1:
            assert "no backup" in errors, errors  # it was through, but for saying so
            self.seen["was through"] += 1
            return
        assert process.returncode == 0, errors
        answer = json.loads(output)
        self.seen["recovered"] += bool(answer.get("recovered"))
        self.seen["strays"] += answer.get("strays", 0)
        self.seen["late"] += answer.get("late", 0)

    def kill(self, phase: str, chance: random.Random) -> bool:
        """Kill a command and run it again; False if it was not in that phase when it was killed."""
        command = "undo" if phase == "undo" else "run"
        if command == "run":
            self._reset()
        elif self.space == "old" or self.backups > 1:
            self._reset()
            self._completed("run")
        self.tries[phase] += 1
        with self._used():
            hit = self._killed(command, phase, chance, by_step=bool(self.tries[phase] % 2))
            self._visit()
            if hit:
                self._completed(command)
                self.seen[f"killed in {hit}"] += 1
        self._compare()
        return hit == phase

    def _killed(
        self, command: str, phase: str, chance: random.Random, *, by_step: bool
    ) -> str | None:
        """Kill a command; return in which phase it was, None if it was through."""
        place = PHASES.index(phase)
        if by_step:
            process = self._command(command, (place, chance.randint(1, self.steps[phase])))
        else:
            process = self._command(command)
            process.wait_until(lambda: bool(BEGAN[place]))
            process.runs_on(chance.uniform(0, self.took[phase]))
            process.kill()
        _, errors = process.ended()
        if process.returncode == 0:
            self.space = "new" if command == "run" else "old"
            return None
        assert process.returncode == -signal.SIGKILL, errors
        return [each for each, began_s in zip(PHASES, BEGAN[:], strict=True) if began_s][-1]

    # -- what has to hold ---------------------------------------------------------------------

    def _compare(self) -> None:
        """Hold the store to what it was made of and what was written since."""
        rows, copied, left = apart(self._look)
        assert self._space_of(rows) == self.space, f"the rows nobody wrote are not {self.space}"
        elsewhere = copied if self.space == "old" else {}
        strays = 0
        for key, text in self.written.rows.items():
            there = [each[key] for each in (rows, elsewhere) if key in each]
            if text is None:
                assert self.space == "old" or not there, f"row {key!r} was deleted, and is there"
                continue
            spaces = [self._space_of_row(*row) for row in there if row[0] == text]
            assert spaces, f"row {key!r} is lost"
            assert all(spaces), f"row {key!r} has not its text's vector: {there}"
            strays += key in rows and rows[key][0] == text and spaces[0] != self.space
        assert strays <= MOST_STRAYS, f"{strays} rows that were written are not {self.space}"
        self.seen["strays left"] += strays
        self._compare_left(left)

    def _look(self) -> tuple[Rows, Rows, Left]:
        session = _patiently(self.subject.session, PATIENCE_S)
        rows = session.rows()
        session.close()
        places = [
            self.ground.home / "state" / "stores",
            Path(f"{self.subject.entry['path']}.emberd"),
        ]
        files = [
            file.name
            for place in places
            for file in place.rglob("*")
            if file.is_file() and not file.relative_to(place).parts[0].startswith("kept-")
        ]  # what is kept is counted as a thing
        kept = [name for name in files if name.startswith(("backup-", "undone-"))]
        left = Left(
            sorted(NUMBERED.sub("", name) for name in files if name not in kept),
            self.things(),
            sum(name.endswith(".db") for name in kept),
        )
        return rows, self.subject.copied(), left

    def _compare_left(self, left: Left) -> None:
        """Hold what is there to what an undisturbed command has left."""
        usual = self.left.setdefault(self.space, left)
        more = left.kept - usual.kept
        found, known = Counter(left.files), Counter(usual.files)
        # Each further backup may have a file of its rows.
        most = known + Counter({name: more for name in found if name.endswith(".rows")})
        assert known <= found <= most, f"beside the store are {left.files}, not {usual.files}"
        self.backups = left.kept if self.space == "new" else 0
        # The same command, run again, embeds once more if a row was on its way at the swap.
        assert 0 <= more <= 1, f"{left} has not as many backups and copies as {usual}"
        things = usual.things + more * self.kept_as_things
        assert left.things == things, f"{left} is more or less than {usual}"

    def _space_of_row(self, text: str, vector: Matrix) -> str | None:
        at = self.ground.place[text]
        for name, space in self._spaces().items():
            if vector.shape == space[at].shape and _are_near(vector[None], space[at][None]):
                return name
        return None


def _after(turns: int) -> Callable[[], bool]:
    """Return what is false so many times."""
    left = iter(range(turns))
    return lambda: next(left, None) is None


def _patiently(do: Callable[[], Any], patience_s: float) -> Any:  # noqa: ANN401 - what it returns
    """Try again as a program does whose store is locked, or missing for a moment."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return do()
        except Exception:
            if time.monotonic() > until_s:
                raise
            time.sleep(PAUSE_S)


def _are_near(a: Matrix, b: Matrix) -> bool:
    return a.shape == b.shape and bool(cosines(a, b).min() > NEAR)


def run(
    kind: type[Subject],
    kills: int,
    seed: int,
    *,
    rows: int = ROWS,
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
        plugins.load(subject.entry["kind"])  # once for all
        tried = Kills(subject, ground)
        took = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in tried.took.items())
        say(f"{kind.name}: seconds of a run beside others: {took}; steps: {tried.steps}")
        phases = phases_in_turn()
        for done in range(1, kills + 1):
            phase = next(phases)
            try:
                assert any(tried.kill(phase, chance) for _ in range(TRIES)), "no kill hits it"
            except BaseException as error:
                error.add_note(f"kill {done}, in {phase}, after {dict(tried.seen)}")
                raise
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
    mark_phases()
    probing.PROBE_S = PATIENCE_S
    for name in kinds if asked.kind == "all" else [asked.kind]:
        began_s = time.monotonic()
        say(f"{name}: seed {asked.seed}, {asked.rows} rows")
        found = run(kinds[name], asked.kills, asked.seed, rows=asked.rows, say=say)
        if asked.out:
            asked.out.write_text(json.dumps(found))
        say(f"{name}: no row lost, no mixture seen, nothing left behind, every command completed:"
            f" {dict(found)}, {time.monotonic() - began_s:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
