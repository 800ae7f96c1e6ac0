"""Another kind of store, installed as anybody's package: the one of docs/writing-a-store.md."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emberd.errors import NotAStoreError, StoreKindError, StoreRowsError
from emberd.migrate.check import check
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.undo import undo
from emberd.stores import plugins
from emberd.vectors import Matrix
from tests.cosines import cosines
from tests.migrate.conftest import Made, Work

EXAMPLE = Path(__file__).parents[2] / "examples" / "store-plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the plugin is installed by pip."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(folder), str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))


def write(path: Path, made: Made, rows: int) -> Path:
    lines = [
        {"id": f"n{at}", "text": made.texts[at], "vector": made.old[at].tolist()}
        for at in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> tuple[list[str], Matrix]:
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    rows = [line for line in lines if "space" not in line]
    return [row["id"] for row in rows], np.array([row["vector"] for row in rows], "<f4")


@pytest.mark.usefixtures("installed")
def test_a_file_of_lines_is_checked_moved_and_undone(
    tmp_path: Path, made: Made, work: Work
) -> None:
    path = write(tmp_path / "notes.jsonl", made, 24)
    before = path.read_bytes()
    named = work.open(path)
    report = check(work.config, named, work.embedder)
    assert (named.store.kind, report.verdict, report.model) == ("jsonl", "compatible", "minilm")

    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    ids, vectors = read(path)
    assert ids == [f"n{at}" for at in range(24)]
    assert cosines(vectors, made.new[:24]).min() > 0.9999
    assert moved.strays == 0
    assert check(work.config, named, work.embedder).judged_by == "stamp"
    migrate_all([named], work.target("minilm"), work.embedder, work.state)
    assert cosines(read(path)[1], made.old[:24]).min() > 0.9999
    undo(named, work.state, confirm=lambda _note, _changed: None)
    undo(named, work.state, confirm=lambda _note, _changed: None)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("installed")
def test_vectors_of_several_dimensions_are_refused(tmp_path: Path, made: Made, work: Work) -> None:
    path = write(tmp_path / "notes.jsonl", made, 20)
    with path.open("a") as file:
        file.write(json.dumps({"text": "short", "vector": [1.0, 2.0]}) + "\n")
    before = path.read_bytes()

    with pytest.raises(StoreRowsError, match="row 21 has 2 dimensions, but others have 384"):
        plan(work.open(path), work.target(), work.embedder, work.state)

    assert path.read_bytes() == before
    assert check(work.config, work.open(path), work.embedder).health.bad_vector == 1


@pytest.mark.slow
@pytest.mark.usefixtures("installed", "nobody_writes")
def test_vectors_without_a_text_are_refused_where_a_kind_sets_none_aside(
    tmp_path: Path, made: Made, work: Work
) -> None:
    path = write(tmp_path / "notes.jsonl", made, 20)
    with path.open("a") as file:
        file.write(json.dumps({"text": "", "vector": [1.0] * 384}) + "\n")
    named, target = work.open(path), work.target()

    for _ in range(2):
        with pytest.raises(StoreRowsError, match=r"1 vectors have no text.*\(21\)") as caught:
            plan(named, target, work.embedder, work.state, set_aside=True)
        assert caught.value.hint == "Give them a text, or delete them."
    assert list(check(work.config, named, work.embedder).health.textless) == [21]


@pytest.mark.usefixtures("installed")
def test_an_option_that_a_kind_does_not_have_is_named(
    tmp_path: Path, made: Made, work: Work
) -> None:
    path = write(tmp_path / "notes.jsonl", made, 2)

    with pytest.raises(StoreKindError, match="no option 'column'") as caught:
        work.open(path, column="x")

    assert caught.value.hint == "Its options: text, vector."


def test_ours_come_along_and_are_asked_first() -> None:
    assert plugins.kinds()[:3] == ["cmem", "llm", "sqlite-vec"]


def test_a_kind_that_is_not_installed_or_broken_is_met_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    about = tmp_path / "broken_store-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-store\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nbroken = no_such_module:Store\n")

    with pytest.raises(StoreKindError, match="'broken' cannot be used: ModuleNotFoundError"):
        plugins.load("broken")
    with pytest.raises(StoreKindError, match="no store kind 'nosuch'; the kinds are cmem"):
        plugins.load("nosuch")


def test_a_kind_that_was_written_for_an_older_emberd_is_refused_with_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (EXAMPLE / "emberd_jsonl.py").read_text()
    older = source.replace("def restoring(", "def restore(").replace("def check_backup(", "def _c(")
    (tmp_path / "older_store.py").write_text(older)
    about = tmp_path / "older_store-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: older-store\nVersion: 1.0\n")
    entry = f"[{plugins.GROUP}]\nolder = older_store:JsonlStore\n"
    (about / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(StoreKindError, match="no check_backup, restoring") as refused:
        plugins.load("older")

    assert "Update older-store" in (refused.value.hint or "")


@pytest.mark.parametrize("name", ["notes.usearch", "folder/index.faiss"])
def test_an_index_without_texts_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"IxFI")
    file.with_suffix(".pkl").write_bytes(b"what it would run is never looked at")

    for place in {file, file.parent}:
        with pytest.raises(NotAStoreError, match="no texts to embed again") as refused:
            plugins.open_store(place, kind=None, options={})
        assert "Build a new one" in (refused.value.hint or "")
