"""Kills, a full disk, and somebody who writes all the time: the store is wholly old or new."""

import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emberd.errors import DiskFullError
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.workplace import Workplace
from tests import disk
from tests.cosines import cosines
from tests.migrate import kills, stores
from tests.migrate.conftest import ROWS, Beside, Made, Work
from tests.serving import Server, wait_for

SIZE_MIB = 24


@pytest.mark.slow
@pytest.mark.usefixtures("texts_come")  # the commands are forked from here
@pytest.mark.parametrize(("many", "beside"), [(15, "writer"), (3, "nothing"), (3, "full_disk")])
@pytest.mark.parametrize("command", ["run", "undo"])
def test_killed_at_any_moment_a_store_is_whole_and_the_same_command_completes(
    command: kills.Command, many: int, beside: str
) -> None:
    """A part of `python -m tests.migrate.kills`, which does it 200 times each."""
    seed = random.randrange(10**6)  # noqa: S311 - no secret

    try:
        seen = kills.run(
            command, many, seed, writer=beside == "writer", full_disk=beside == "full_disk"
        )
    except disk.CannotMountError as error:
        pytest.skip(str(error))

    print(f"seed {seed}: {dict(seen)}")  # noqa: T201 - shown when it fails
    ended = [each for each in seen if each.startswith(("killed", "gave up", "through"))]
    assert sum(seen[each] for each in ended) == many


@pytest.mark.slow
def test_what_a_writer_does_meanwhile_is_there_afterwards(
    cmem: Path, most: Made, work: Work, tmp_path: Path
) -> None:
    texts = most.texts[ROWS : ROWS + 700]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    np.save(tmp_path / "old.npy", most.old[ROWS : ROWS + 700])
    np.save(tmp_path / "new.npy", most.new[ROWS : ROWS + 700])
    command = [sys.executable, "-m", "tests.migrate.writer", str(cmem / "memories.db")]
    target, named = work.target(), work.open(cmem)

    writer = subprocess.Popen([*command, str(tmp_path)])
    try:
        wait_for(lambda: stores.read(cmem / "memories.db")[0][-1] > ROWS)
        moved = migrate_all(
            [named], target, work.embedder, work.state, options=RunOptions(batch=32)
        )[named.name]
    finally:
        (tmp_path / "stop").touch()
        assert writer.wait(60) == 0

    done = json.loads((tmp_path / "done.json").read_text())
    expected = {key: most.new[key - 1] for key in range(1, ROWS + 1)}
    for key, at in done["written"]:
        expected.pop(key, None)
        if at is not None:
            expected[key] = most.new[ROWS + at]
    keys, vectors = stores.read(cmem / "memories.db")
    assert keys == sorted(expected)
    assert cosines(vectors, np.stack([expected[key] for key in keys])).min() > 0.9999
    assert moved.embedded > ROWS  # the writer was met while the run went on
    assert moved.strays == 0


@pytest.mark.slow
@pytest.mark.parametrize("limit_kib", [8, 100, 520])
def test_a_file_that_may_not_grow_costs_nothing_but_the_run(
    cmem: Path, made: Made, server: Server, limit_kib: int
) -> None:
    """The limit on a file's size stands for a disk that is full at several moments of a run."""
    limit = limit_kib * 1024
    command = [sys.executable, "-m", "emberd.cli.main", "migrate", "run", str(cmem)]
    command += ["--to", "minilm-f32", "--yes", "--json"]

    done = subprocess.run(
        command,
        capture_output=True,
        env=server._environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )

    assert done.returncode == 1, done.stdout
    assert b"full" in done.stderr or b"cannot be" in done.stderr, done.stderr
    assert b"Traceback" not in done.stderr
    assert np.array_equal(stores.read(cmem / "memories.db")[1], made.old[:ROWS])
    again = server.run(*command[3:])
    assert again.returncode == 0, again.stderr
    vectors = stores.read(cmem / "memories.db")[1]
    assert cosines(vectors, made.new[:ROWS]).min() > 0.9999


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    try:
        with disk.mounted(tmp_path / "disk", SIZE_MIB) as folder:
            yield folder
    except disk.CannotMountError as error:
        pytest.skip(f"{error}; the limit on file size stands in for it")


def names(folder: Path) -> list[str]:
    """Return the names of all files but SQLite's own companions."""
    found = sorted(path.name for path in folder.rglob("*"))
    return [name for name in found if not name.endswith(("-shm", "-wal"))]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["embedding", "committing"])
def test_a_disk_that_gets_full_on_the_way(
    moment: str, small_disk: Path, cmem: Path, made: Made, work: Work, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(cmem, small_disk / "cmem"))
    named, target = work.open(store), work.target()
    hogs: list[Path] = []

    def report(done: int, _total: int) -> None:
        if moment == "embedding" and done and not hogs:
            hogs.append(disk.fill(small_disk))

    def fill_it() -> None:
        if moment == "committing":
            hogs.append(disk.fill(small_disk))

    with pytest.raises(DiskFullError):
        migrate_all(
            [named], target, work.embedder, work.state,
            options=RunOptions(batch=32), progress=lambda _named: report,
            participant=Beside(tmp_path / "file", fill_it),
        )  # fmt: skip

    hogs[0].unlink()
    assert np.array_equal(stores.read(store / "memories.db")[1], made.old[:ROWS])
    migrate_all([named], target, work.embedder, work.state)
    vectors = stores.read(store / "memories.db")[1]
    assert cosines(vectors, made.new[:ROWS]).min() > 0.9999


def test_too_small_a_disk_is_met_before_anything_is_written(
    small_disk: Path, cmem: Path, work: Work
) -> None:
    store = Path(shutil.copytree(cmem, small_disk / "cmem"))
    with (small_disk / "hog").open("wb") as hog:
        hog.write(bytes((SIZE_MIB - 18) * 2**20))
    before = names(store)

    with pytest.raises(DiskFullError, match="left") as caught:
        plan(work.open(store), work.target(), work.embedder, work.state)

    assert caught.value.code == "disk_full"
    assert names(store) == before


def test_room_is_a_question_of_the_stores_own_disk(cmem: Path, work: Work) -> None:
    with pytest.raises(DiskFullError, match="left"):
        Workplace(work.open(cmem).store, work.state).require_room(2**60)
