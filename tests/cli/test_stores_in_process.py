"""`emberd migrate` and `emberd use --migrate`, with vectors that no model has to make."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.config.load import Config, load_config
from emberd.migrate import embedding, textless
from emberd.migrate.embedding import Embedder
from emberd.migrate.known import find
from emberd.migrate.notes import Note
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import Workplace
from emberd.stores.base import Stamp
from tests import model_folder
from tests.in_process import Done, run_here
from tests.migrate import stores
from tests.migrate.drawn import NEW, ROWS, TEXTS, DrawingEmbedder, holds, make_cmem, vectors
from tests.serving import clean_environ

NOTES = {"path": "notes", "kind": "cmem"}
YES = ("--yes", "--json")


@pytest.fixture(autouse=True)
def _drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let vectors be drawn in place of the pool's."""

    @contextmanager
    def open_embedder(_config: Config) -> Iterator[Embedder]:
        yield DrawingEmbedder()

    monkeypatch.setattr(embedding, "open_embedder", open_embedder)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the models `old` and `new`, and a store of `old`, the default, called notes."""
    make_cmem(tmp_path / "notes")
    folder = model_folder.write(tmp_path / "model")
    entry = {"sources": [{"path": str(folder)}], "dimensions": 8, "pooling": "mean"}
    models = {name: {**entry, "max_tokens": 9} for name in ("old", "new")}
    configured = {"default": "old", "models": models, "stores": {"notes": NOTES}}
    write_config(tmp_path, configured)
    return tmp_path


def write_config(home: Path, content: dict[str, Any]) -> None:
    (home / "config.yaml").write_text(json.dumps(content))


def change_config(home: Path, **changes: object) -> None:
    write_config(home, json.loads((home / "config.yaml").read_text()) | changes)


def said(done: Done) -> dict[str, Any]:
    """Return what a command that went well printed with `--json`."""
    assert done.code == 0, done.err
    answer: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return answer


def notes_of(home: Path) -> StoreRef:
    return find(load_config(environ=clean_environ(home)), "notes")


def stop_a_run(home: Path, *, committed: bool) -> None:
    """Leave what a run to `new` leaves if it dies before or after the commit."""
    ref = notes_of(home)
    place = Workplace(ref.store, home / "state")
    note = Note(
        migration="m", at="now", model="new", dimensions=8, part=place.store.part, rows=ROWS,  # type: ignore[attr-defined]
        digest="", name="notes", before=None, after=ref.holding("new", "of new", migration="m"),
        settings=None,
    )  # fmt: skip
    stamp = Stamp(
        model="new", fingerprint=NEW.fingerprint, dimensions=8, probes="", migration="m",
        made_at="now",
    )  # fmt: skip
    with place.locked(), ref.store.replacing() as replacement:
        place.prepare(note)
        made = [(at + 1, row.tobytes()) for at, row in enumerate(vectors(TEXTS, "new"))]
        replacement.fill(made, dimensions=8, stamp=stamp)
        place.filled(replacement.digest())
        if committed:
            replacement.commit()


# -- migrate --------------------------------------------------------------------------------


def test_a_plan_changes_nothing_and_a_run_that_is_done_is_not_repeated(home: Path) -> None:
    run = ("migrate", "run", "notes", "--to", "new")

    planned = said(run_here(home, *run, "--dry-run", "--json"))
    assert (planned["status"], planned["rows"]) == ("planned", ROWS)
    assert holds(notes_of(home), "old")

    moved = said(run_here(home, *run, *YES))
    assert (moved["status"], moved["embedded"], moved["default_fits"]) == ("moved", ROWS, False)
    assert holds(notes_of(home), "new")

    there = said(run_here(home, *run, *YES))
    assert (there["status"], there["recovered"], there["completed"]) == ("there", None, 0)


@pytest.mark.parametrize("before", ["old", "new"])
def test_a_run_that_had_stopped_is_finished_or_discarded_first(before: str, home: Path) -> None:
    stop_a_run(home, committed=before == "new")

    done = run_here(home, "migrate", "run", "notes", "--to", "new", "--yes")

    assert done.code == 0, done.err
    assert ("Finished a migration to new" in done.out) is (before == "new")
    assert holds(notes_of(home), "new")


def test_vectors_whose_text_has_come_are_put_back_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textless, "LACKING_S", 0.0)
    run = ("migrate", "run", "notes", "--to", "new", "--yes")
    database = stores.connect(home / "notes" / "memories.db")
    stores.add(database, [99], [""], vectors(["late"], "old"))
    moved = said(run_here(home, *run, "--set-aside", "--json"))
    assert (moved["embedded"], moved["set_aside"]) == (ROWS, 1)
    database.execute("UPDATE memories SET content = 'late' WHERE id = 99")
    database.close()

    done = run_here(home, *run)

    assert done.code == 0, done.err
    assert done.out.startswith("1 vectors that were set aside got a text")
    keys, there = stores.read(home / "notes" / "memories.db")
    assert keys[-1] == 99
    assert np.array_equal(there[-1:], vectors(["late"], "new"))


def test_an_undo_says_what_it_checked_and_what_it_would_lose(home: Path) -> None:
    run_here(home, "migrate", "run", "notes", "--to", "new", "--yes")
    database = stores.connect(home / "notes" / "memories.db")
    stores.add(database, [99], ["written since"], vectors(["written since"], "new"))
    database.close()
    forget_the_hash(home)

    refused = run_here(home, "migrate", "undo", "notes")
    assert refused.code == 1
    assert "--yes" in refused.err
    assert "was written to" in refused.out
    assert "older emberd" in refused.out
    assert holds(notes_of(home), "new")

    undone = said(run_here(home, "migrate", "undo", "notes", *YES))
    assert (undone["store"], undone["from"]) == ("notes", "new")
    assert (undone["changed"], undone["backup_checked_by"]) == (True, "integrity")
    assert stores.read(Path(undone["copy"]))[0][-1] == 99
    assert holds(notes_of(home), "old")


def forget_the_hash(home: Path) -> None:
    """Make the backup's note as an older emberd wrote it."""
    (path,) = (home / "notes" / "memories.db.emberd").glob("backup-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "backup_hash": None}))


def test_a_terminal_is_asked_and_shows_how_far_it_is(home: Path) -> None:
    run = ("migrate", "run", "notes", "--to", "new")

    no = run_here(home, *run, typed="n\n")
    assert no.code == 1
    assert "Embed it again with new?" in no.out
    assert holds(notes_of(home), "old")

    yes = run_here(home, *run, typed="y\n")
    assert yes.code == 0
    assert f"{ROWS}/{ROWS}" in yes.out  # the bar
    assert holds(notes_of(home), "new")


def test_a_check_compares_as_many_rows_as_asked(home: Path) -> None:
    check = ("migrate", "check", "notes", "--model", "old", "--json")

    whole = said(run_here(home, *check, "--sample", "all"))
    few = said(run_here(home, *check, "--sample", "3"))
    wrong = [run_here(home, *check, "--sample", count) for count in ("0", "-1", "many")]

    assert (whole["sampled"], few["sampled"]) == (ROWS, 3)
    assert (whole["verdict"], whole["model"], whole["exit_code"]) == ("compatible", "old", 0)
    assert [(done.code, json.loads(done.err)["code"]) for done in wrong] == [(1, "bad_option")] * 3


# -- use ------------------------------------------------------------------------------------


def test_the_default_and_its_stores_change_together(home: Path) -> None:
    plan = said(run_here(home, "use", "new", "--migrate", "--dry-run", "--json"))
    assert (plan["status"], [row["store"] for row in plan["plans"]]) == ("planned", ["notes"])
    assert holds(notes_of(home), "old")

    done = said(run_here(home, "use", "new", "--migrate", *YES))
    assert (done["status"], done["moved"]["notes"]["embedded"]) == ("changed", ROWS)
    assert holds(notes_of(home), "new")
    assert load_config(environ=clean_environ(home)).settings.default == "new"

    again = said(run_here(home, "use", "new", "--migrate", *YES))
    assert (again["status"], again["stores"]) == ("unchanged", [])


def test_a_person_is_told_the_plan_and_what_was_done(home: Path) -> None:
    planned = run_here(home, "use", "new", "--migrate", "--dry-run")
    done = run_here(home, "use", "new", "--migrate", "--yes")

    assert (planned.code, done.code) == (0, 0)
    for shown in (planned.out, done.out):
        assert "default: old -> new" in shown
        assert f"{ROWS} rows" in shown
    assert "new is now the default" in done.out
    assert "new is now the default" not in planned.out


@pytest.mark.parametrize("stores_", [{}, {"notes": {**NOTES, "model": "old"}}])
def test_without_a_store_that_follows_the_default_that_is_said(
    stores_: dict[str, Any], home: Path
) -> None:
    change_config(home, stores=stores_)

    planned = run_here(home, "use", "new", "--migrate", "--dry-run")
    done = run_here(home, "use", "new", "--migrate", "--yes")

    assert "nothing would be embedded" in planned.out
    assert "nothing was embedded" in done.out
    assert "`stores:`" in done.out
    assert holds(notes_of(home), "old") if stores_ else True


def test_stores_that_would_no_longer_match_are_listed(home: Path) -> None:
    make_cmem(home / "other")
    config = {"notes": NOTES, "other": {"path": "other"}, "gone": {"path": "gone"}}
    change_config(home, stores=config)
    run_here(home, "migrate", "check", "notes", "--sample", "all")  # so it is known

    shown = run_here(home, "use", "new", "--dry-run").out

    assert f"The store notes ({home}/notes/memories.db) would no longer match." in shown
    assert f"The store other ({home}/other/memories.db) may no longer match." in shown
    assert f"The store gone ({home}/gone) cannot be read:" in shown


def test_a_switch_that_had_stopped_is_taken_back_first(home: Path) -> None:
    stop_a_run(home, committed=True)

    done = run_here(home, "use", "old")

    assert done.code == 0, done.err
    assert "a migration to new that had been stopped" in done.out
    assert "old is already the default." in done.out
